"""Media types, and how the default functions read and write them."""
import functools
import io
import json

from model_host.errors import UnsupportedFormatError

JSON = "application/json"
CSV = "text/csv"
OCTET_STREAM = "application/octet-stream"
ANY = "*/*"
NPY = "application/x-npy"
NPZ = "application/x-npz"
JSON_LINES = "application/jsonlines"
# Bodies of exactly these types reach the inference script as str; all others as bytes.
UTF8_TYPES = [JSON, CSV]


def numpy():
    """numpy, or None where it is not installed."""
    try:
        import numpy as module
    except ImportError:
        return None
    return module


def media_type(content_type):
    """The media type without its parameters, in lower case."""
    return (content_type or "").split(";", 1)[0].strip().lower()


def parse_accept(accept):
    """The media types of an Accept header in their order."""
    return [part for part in (accept or "").replace(" ", "").split(",") if part]


@functools.lru_cache(maxsize=64)
def first_media_type(accept):
    """The media type that an Accept header names first."""
    return media_type(parse_accept(accept)[0])


def text(body):
    """The body as str."""
    return body if isinstance(body, str) else bytes(body).decode("utf-8")


def _json_to_numpy(body, dtype=None):
    data = json.loads(text(body))
    # Clients of prediction protocols put the rows into an object.
    if isinstance(data, dict) and set(data) == {"instances"}:
        data = data["instances"]
    module = numpy()
    # Without numpy the plain lists and numbers are the nearest thing.
    return data if module is None else module.array(data, dtype=dtype)


def _csv_to_numpy(body, dtype=None):
    module = numpy()
    if module is None:
        return [[_number(cell) for cell in line.split(",")] for line in text(body).splitlines() if line.strip()]
    return module.genfromtxt(io.StringIO(text(body)), dtype=dtype, delimiter=",")


def _number(cell):
    try:
        return float(cell)
    except ValueError:
        return cell


def _npy_to_numpy(body, dtype=None):
    module = _need_numpy(NPY)
    # The clients send pickled objects in this form, and the model runs in a sandbox of its own.
    array = module.load(io.BytesIO(body), allow_pickle=True)
    return array if dtype is None else array.astype(dtype)


def _npz_to_sparse(body, dtype=None):
    module = _need_numpy(NPZ)
    try:
        import scipy.sparse
    except ImportError:
        matrix = dict(module.load(io.BytesIO(body), allow_pickle=True))
    else:
        matrix = scipy.sparse.load_npz(io.BytesIO(body))
        matrix = matrix if dtype is None else matrix.astype(dtype)
    return matrix


def _need_numpy(content_type):
    module = numpy()
    if module is None:
        raise UnsupportedFormatError(content_type + " (numpy is not installed in this environment)")
    return module


def _to_json(prediction):
    def plain(value):
        if hasattr(value, "tolist"):
            return value.tolist()
        raise TypeError("a {} cannot be written as JSON".format(type(value).__name__))

    return json.dumps(prediction, default=plain)


def _to_npy(prediction):
    buffer = io.BytesIO()
    _need_numpy(NPY).save(buffer, prediction)
    return buffer.getvalue()


def _to_csv(prediction):
    module = numpy()
    if module is not None:
        buffer = io.StringIO()
        module.savetxt(buffer, prediction, delimiter=",", fmt="%s")
        return buffer.getvalue()
    rows = [row if isinstance(row, (list, tuple)) else [row] for row in prediction]
    return "".join(",".join(str(cell) for cell in row) + "\n" for row in rows)


_DECODERS = {JSON: _json_to_numpy, CSV: _csv_to_numpy, NPY: _npy_to_numpy, NPZ: _npz_to_sparse}
_ENCODERS = {JSON: _to_json, CSV: _to_csv, NPY: _to_npy}
SUPPORTED_CONTENT_TYPES = set(_ENCODERS)


def decode(body, content_type):
    """Reads a body of one of the default media types."""
    decoder = _DECODERS.get(media_type(content_type))
    if decoder is None:
        raise UnsupportedFormatError(content_type)
    return decoder(body)


def encode(prediction, content_type):
    """Writes a prediction as one of the default media types."""
    encoder = _ENCODERS.get(media_type(content_type))
    if encoder is None:
        raise UnsupportedFormatError(content_type)
    return encoder(prediction)


def choose_type(accept, supported, any_type):
    """The first accepted media type that can be written, or None. `*/*` stands for `any_type`."""
    for part in parse_accept(accept):
        part = media_type(part)
        if part == ANY:
            return any_type
        if part in supported:
            return part
    return None
