"""The `context` that inference functions may take as their last argument."""

CUSTOM_ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
NEW_SESSION_ID = "X-Amzn-SageMaker-New-Session-Id"
CLOSED_SESSION_ID = "X-Amzn-SageMaker-Closed-Session-Id"

_REQUEST_HEADERS = (
    ("content_type", "Content-Type"),
    ("accept", "Accept"),
    ("custom_attributes", CUSTOM_ATTRIBUTES),
    ("inference_id", "X-Amzn-SageMaker-Inference-Id"),
    ("session_id", "X-Amzn-SageMaker-Session-Id"),
    ("target_model", "X-Amzn-SageMaker-Target-Model"),
)
_ANSWER_FIELDS = {
    CUSTOM_ATTRIBUTES.lower(): "custom_attributes",
    NEW_SESSION_ID.lower(): "new_session_id",
    CLOSED_SESSION_ID.lower(): "closed_session_id",
}


class RequestProcessor:
    """The headers of one request."""

    def __init__(self, headers):
        self._headers = headers

    def get_request_properties(self):
        return dict(self._headers)

    def get_request_property(self, key):
        wanted = key.lower()
        return next((value for name, value in self._headers.items() if name.lower() == wanted), None)


class Context:
    """What a script can ask about the model and the request, and set on the answer. One request at a time."""

    def __init__(self, model_dir, model_name="model"):
        self.model_name = model_name
        self.manifest = {}
        self.system_properties = {"model_dir": model_dir, "gpu_id": None, "batch_size": 1, "server_name": "model_host"}
        self.begin({})

    def begin(self, header):
        """Forgets the last request and takes the header of the next."""
        self._header = header
        self._processors = None
        self.answer_fields = {}
        self.status = None
        self.content_type = None

    def keep(self):
        """What is known of the request at hand, for `resume`."""
        return self._header, self._processors, self.answer_fields, self.status, self.content_type

    def resume(self, kept):
        """Goes back to a request that was left for others."""
        self._header, self._processors, self.answer_fields, self.status, self.content_type = kept

    # Made when a script asks: most do not.
    @property
    def request_processor(self):
        if self._processors is None:
            header = self._header
            headers = {name: header[field] for field, name in _REQUEST_HEADERS if header.get(field) is not None}
            self._processors = [RequestProcessor(headers)]
        return self._processors

    @property
    def request_ids(self):
        return {0: self._header.get("request_id") or ""}

    def get_request_id(self, idx=0):
        return self.request_ids[idx]

    def get_request_header(self, idx, key):
        return self.request_processor[idx].get_request_property(key)

    def get_all_request_header(self, idx=0):
        return self.request_processor[idx].get_request_properties()

    def set_response_content_type(self, idx, value):
        self.content_type = value

    def set_response_header(self, idx, key, value):
        """Of the headers a model sets, the service passes on these."""
        if key.lower() == "content-type":
            self.content_type = value
        field = _ANSWER_FIELDS.get(key.lower())
        if field:
            self.answer_fields[field] = str(value)

    def set_response_status(self, code=200, phrase="", idx=0):
        self.status = int(code)

    def set_all_response_status(self, code=200, phrase=""):
        self.status = int(code)
