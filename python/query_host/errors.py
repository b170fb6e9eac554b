"""What is wrong with a query, in one sentence with its place."""


class QueryError(Exception):
    """A query that cannot be run; `code` is a word of the service that the engine stands for."""

    def __init__(self, code, message, line=None, column=None):
        super().__init__(message)
        self.code = code
        self.message = " ".join(str(message).split())
        self.line = line
        self.column = column

    def document(self):
        """As the server reads it."""
        return {"code": self.code, "message": self.message, "line": self.line, "column": self.column}
