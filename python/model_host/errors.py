"""Errors that carry an HTTP status, and the form in which errors are answered."""
import json
import traceback

_TYPES = {
    400: "BadRequestException",
    406: "NotAcceptableException",
    415: "UnsupportedMediaTypeException",
    500: "InternalServerException",
    503: "ServiceUnavailableException",
}


class HostError(Exception):
    """The model cannot be served as it is; the text says what to do."""


class UnsupportedFormatError(Exception):
    """A media type that the default functions cannot read or write."""

    def __init__(self, content_type, **_ignored):
        super().__init__(
            "Content type {} is not supported by this framework. Implement input_fn to read the request or output_fn "
            "to write the answer.".format(content_type)
        )


class BaseInferenceToolkitError(Exception):
    """An error whose HTTP status the inference script chooses."""

    def __init__(self, status_code, message, phrase=None):
        self.status_code = status_code
        self.message = message
        self.phrase = phrase or message
        super().__init__(status_code, message, self.phrase)


class GenericInferenceToolkitError(BaseInferenceToolkitError):
    """The same with texts that may be left out."""

    def __init__(self, status_code, message=None, phrase=None):
        super().__init__(status_code, message or "Invalid Request", phrase)


def is_unsupported_format(error):
    """Whether this is such an error, be it ours or that of an installed toolkit."""
    return any(kind.__name__ == "UnsupportedFormatError" for kind in type(error).__mro__)


def status_of(error, unsupported_status):
    """The HTTP status that answers an exception of the inference script."""
    if is_unsupported_format(error):
        return unsupported_status
    status = getattr(error, "status_code", None)
    if isinstance(status, int) and 400 <= status <= 599:
        return int(status)
    return 500


def error_body(status, error):
    """The body that answers an exception: what happened, and where."""
    message = getattr(error, "message", None)
    if not isinstance(message, str):
        message = str(error) or type(error).__name__
    trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    body = {
        "code": status,
        "type": _TYPES.get(status, type(error).__name__),
        "message": message,
        "traceback": trace,
    }
    return json.dumps(body).encode("utf-8")
