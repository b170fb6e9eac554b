"""A loaded model: takes the bytes of a request and gives the answer."""
import inspect
import os
import sys
import traceback

from model_host import compatibility, content, frameworks, joining, script
from model_host.context import CLOSED_SESSION_ID, CUSTOM_ATTRIBUTES, NEW_SESSION_ID, Context
from model_host.errors import error_body, status_of


class Answer:
    """What goes back to the caller. `chunks` is set instead of `body` for a streamed answer."""

    __slots__ = ("status", "content_type", "body", "chunks", "fields")

    def __init__(self, status, content_type, body=b"", chunks=None, fields=None):
        self.status = status
        self.content_type = content_type
        self.body = body
        self.chunks = chunks
        self.fields = fields

    def header(self):
        header = {"status": self.status}
        if self.content_type:
            header["content_type"] = self.content_type
        if self.fields:
            header.update(self.fields)
        return header


class Model:
    """The model and the functions around it."""

    def __init__(self, framework, model_dir, code_dir=None, environment=None):
        environment = os.environ if environment is None else environment
        compatibility.install()
        self._context = Context(model_dir)
        folder, path = script.find_script(environment, model_dir, code_dir)
        if path is None:
            if folder and folder not in sys.path:
                sys.path.insert(0, folder)
            module, defaults = None, frameworks.without_script(framework, model_dir)
        else:
            module, defaults = script.import_script(folder, path), frameworks.with_script(framework)
        self._functions = script.Functions(module, defaults, self._context)
        self._default_content_type = defaults.default_content_type
        self._default_accept = environment.get("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT") or defaults.default_accept
        if self._functions.pre_model:
            self._functions.pre_model(model_dir)
        self._model = self._functions.model(model_dir)
        if self._functions.warmup:
            self._functions.warmup(model_dir, self._model)
        self._joining = joining.joining(environment, self._functions, self._model)

    def batch_limit(self):
        """How many requests it answers together at most."""
        return self._joining.limit if self._joining else 1

    def invoke(self, header, body):
        """Runs one request. Whatever the script raises becomes an answer."""
        self._context.begin(header)
        try:
            return self._run(header, body)
        except Exception as error:
            return self._failed(error, 415)

    def invoke_together(self, requests, before_call):
        """Gives the answers of several requests in their order. `before_call` is called before each call of the model."""
        parts = [self._part(header, body) for header, body in requests]
        if self._joining:
            self._joining.predict(parts, self._model, before_call)
        for part in parts:
            answer = self._joined_answer(part) if part.is_predicted else None
            if answer is None:
                before_call()
                answer = self.invoke(part.header, part.body)
            yield answer

    def _part(self, header, body):
        part = joining.Part(header, body)
        if self._joining:
            self._context.begin(header)
            try:
                content_type, part.accept, body = self._understood(header, body)
                part.rows = self._joining.rows(body, content_type)
                part.context = self._context.keep()
            except Exception:
                part.rows = None  # alone, it hears what is wrong
        return part

    def _joined_answer(self, part):
        self._context.resume(part.context)
        try:
            return self._answer(self._functions.output(part.prediction, part.accept), part.accept)
        except Exception:
            return None

    def _understood(self, header, body):
        content_type = header.get("content_type") or self._default_content_type
        accept = header.get("accept")
        if not accept or accept == content.ANY:
            accept = self._default_accept
        # Made from the buffer in which the request arrived; the only copy of the body.
        body = str(body, "utf-8") if content_type in content.UTF8_TYPES else bytes(body)
        return content_type, accept, body

    def _run(self, header, body):
        functions = self._functions
        content_type, accept, body = self._understood(header, body)
        if functions.transform:
            return self._answer(functions.transform(self._model, body, content_type, accept), accept)
        try:
            data = functions.input(body, content_type)
        except Exception as error:
            return self._failed(error, 415)
        prediction = functions.predict(data, self._model)
        try:
            result = functions.output(prediction, accept)
        except Exception as error:
            return self._failed(error, 406)
        return self._answer(result, accept)

    def _failed(self, error, unsupported_status):
        traceback.print_exception(type(error), error, error.__traceback__)
        status = status_of(error, unsupported_status)
        return Answer(status, content.JSON, error_body(status, error), fields=self._context.answer_fields)

    def _answer(self, result, accept):
        context = self._context
        status = context.status or 200
        content_type = context.content_type or content.first_media_type(accept)
        fields = context.answer_fields
        if isinstance(result, tuple) and len(result) == 2:
            result, content_type = result
        elif hasattr(result, "get_data") and hasattr(result, "status_code"):
            # The answer object of a web framework, as scripts for the older toolkit return it.
            status, content_type = result.status_code, result.mimetype
            fields = dict(fields, **_fields_of_headers(getattr(result, "headers", None)))
            result = result.get_data()
        if inspect.isgenerator(result) or (hasattr(result, "__next__") and not isinstance(result, (str, bytes))):
            return Answer(status, content_type, chunks=result, fields=fields)
        return Answer(status, content_type, as_bytes(result), fields=fields)


def _fields_of_headers(headers):
    names = {
        "custom_attributes": CUSTOM_ATTRIBUTES,
        "new_session_id": NEW_SESSION_ID,
        "closed_session_id": CLOSED_SESSION_ID,
    }
    found = {field: headers.get(name) for field, name in names.items()} if headers else {}
    return {field: value for field, value in found.items() if value}


def as_bytes(result):
    """The bytes of what a script returned: bytes and text as they are, anything else as JSON."""
    if isinstance(result, bytes):
        return result
    if isinstance(result, str):
        return result.encode("utf-8")
    if isinstance(result, (bytearray, memoryview)):
        return bytes(result)
    return content.encode(result, content.JSON).encode("utf-8")
