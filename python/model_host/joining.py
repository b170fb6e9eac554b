"""Answering several requests with one call of predict: their rows are put together, and the predictions taken apart.

Whatever does not fit in is answered alone, as if it had come alone: input that is no table, a joined call that fails, an output that
cannot be written. Nobody gets another one's answer or error.
"""
import sys

from model_host import content
from model_host.errors import HostError
from model_host.exactness import is_exact

VARIABLE = "MODEL_HOST_BATCH"
LIMIT_VARIABLE = "MODEL_HOST_BATCH_LIMIT"
# The data plane has a limit of its own, which is usually less.
MOST_REQUESTS = 1024


class Part:
    """One of the requests that are answered together."""

    __slots__ = ("header", "body", "accept", "context", "rows", "prediction", "is_predicted")

    def __init__(self, header, body):
        self.header = header
        self.body = body
        self.rows = None
        self.is_predicted = False


class Joining:
    """How the rows of a model's requests are put together."""

    def __init__(self, functions, limit, is_wished):
        # Where the framework turns rows into something else, they are joined before that.
        self.rows = functions.rows or functions.input
        self._matrix = functions.matrix or (lambda rows: rows)
        self._predict = functions.predict
        self.limit = limit
        # Whoever asked for it wants to know where it does not happen.
        self._warns = is_wished

    def predict(self, parts, model, before_call):
        """Predicts together what fits together; `is_predicted` of a part says whether it was."""
        groups = {}
        for part in parts:
            if part.rows is not None:
                key = _shape(part.rows)
                if key is None:
                    self._warn("input_fn gave a {} that is no table of rows".format(type(part.rows).__name__))
                else:
                    groups.setdefault(key, []).append(part)
        for group in groups.values():
            if len(group) > 1 and self.limit > 1:
                before_call()
                self._predict_group(group, model)

    def _predict_group(self, group, model):
        try:
            prediction = self._predict(self._matrix(_joined([part.rows for part in group])), model)
        except Exception:
            return  # one of them is at fault; each alone, they find out which
        pieces = _pieces(prediction, [len(part.rows) for part in group])
        if pieces is None:
            self._warn("predict_fn gave no list or array with an element for each row")
            self.limit = 1
            return
        for part, piece in zip(group, pieces):
            part.prediction = piece
            part.is_predicted = True

    def _warn(self, reason):
        if self._warns:
            self._warns = False
            print("WARNING: {}: {}; such requests are answered one by one.".format(VARIABLE, reason), file=sys.stderr, flush=True)


def joining(environment, functions, model):
    """How requests to the model are joined, or None where they are not."""
    wish = environment.get(VARIABLE) or "auto"
    limit = _limit(environment)
    if wish not in ("auto", "rows", "off"):
        raise HostError("{} must be rows, off or auto, and is {!r}.".format(VARIABLE, wish))
    if wish == "off" or limit < 2:
        return None
    if wish == "rows":
        if functions.transform:
            raise HostError("{}=rows needs input_fn, predict_fn and output_fn, and the script has transform_fn.".format(VARIABLE))
        if functions.predict_sees_context:
            raise HostError("{}=rows needs a predict_fn without context, since it is called for several requests.".format(VARIABLE))
    elif not functions.are_default or not is_exact(model):
        return None
    return Joining(functions, limit, wish == "rows")


def _limit(environment):
    text = environment.get(LIMIT_VARIABLE) or str(MOST_REQUESTS)
    if not text.isdigit() or not 1 <= int(text) <= MOST_REQUESTS:
        raise HostError("{} must be a number from 1 to {}, and is {!r}.".format(LIMIT_VARIABLE, MOST_REQUESTS, text))
    return int(text)


def _torch():
    # A tensor can only be there when the module is.
    return sys.modules.get("torch")


def _shape(rows):
    """What rows must have in common to be joined, or None where they cannot be."""
    numpy, torch = content.numpy(), _torch()
    if numpy is not None and type(rows) is numpy.ndarray:
        is_table = rows.ndim >= 2 and len(rows) and rows.dtype.kind != "O" and rows.flags.c_contiguous
        return ("array", rows.dtype.str, rows.shape[1:]) if is_table else None
    if torch is not None and isinstance(rows, torch.Tensor):
        is_table = rows.dim() >= 2 and len(rows)
        return ("tensor", rows.dtype, rows.device, tuple(rows.shape[1:])) if is_table else None
    if isinstance(rows, list) and rows and all(isinstance(row, list) and len(row) == len(rows[0]) for row in rows):
        return ("list", len(rows[0]))
    return None


def _joined(tables):
    first = tables[0]
    if isinstance(first, list):
        return [row for table in tables for row in table]
    torch = _torch()
    if torch is not None and isinstance(first, torch.Tensor):
        return torch.cat(tables)
    return content.numpy().concatenate(tables)


def _pieces(prediction, counts):
    """The predictions of each request, or None where they are not one for each row."""
    numpy, torch = content.numpy(), _torch()
    is_array = numpy is not None and type(prediction) is numpy.ndarray and prediction.ndim >= 1
    is_tensor = torch is not None and isinstance(prediction, torch.Tensor) and prediction.dim() >= 1
    if not (is_array or is_tensor or isinstance(prediction, list)) or len(prediction) != sum(counts):
        return None
    pieces, start = [], 0
    for count in counts:
        piece = prediction[start:start + count]
        # In the order in memory that it would have had alone, since npy tells it.
        is_fortran = is_array and prediction.flags.f_contiguous and not prediction.flags.c_contiguous
        pieces.append(numpy.asfortranarray(piece) if is_fortran else piece)
        start += count
    return pieces
