"""The defaults that hold for every framework."""
import inspect
import os

from model_host import content
from model_host.errors import HostError, UnsupportedFormatError


class DefaultFunctions:
    """Reads and writes JSON, CSV and npy; loads no model and predicts nothing."""

    # What is answered where the caller takes anything and SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT does not say.
    default_accept = content.JSON
    # What a body is that comes without a content type.
    default_content_type = content.JSON

    @classmethod
    def alone(cls, model_dir):
        """The functions to use without an inference script, or None if there is no model they could load."""
        return None

    def model_fn(self, model_dir):
        raise HostError("The inference script has no model_fn, and {}; add a model_fn.".format(self.why_no_model(model_dir)))

    def why_no_model(self, model_dir):
        return "this framework has no default way to load a model"

    def input_fn(self, body, content_type):
        return content.decode(body, content_type)

    def predict_fn(self, data, model):
        raise NotImplementedError("The inference script has no predict_fn, and this framework has no default; add one.")

    def output_fn(self, prediction, accept):
        if inspect.isgenerator(prediction):
            return stream_lines(prediction), first_type(accept, content.JSON_LINES)
        chosen = content.choose_type(accept, content.SUPPORTED_CONTENT_TYPES, self.default_accept)
        if chosen is None:
            raise UnsupportedFormatError(accept)
        return content.encode(prediction, chosen), chosen


def first_type(accept, default):
    """The first accepted media type, where any will do."""
    types = [part for part in content.parse_accept(accept) if content.media_type(part) != content.ANY]
    return types[0] if types else default


def stream_lines(predictions):
    """Passes text and bytes on as they come; anything else becomes a line of JSON."""
    for prediction in predictions:
        if isinstance(prediction, (str, bytes, bytearray, memoryview)):
            yield prediction
        else:
            yield content.encode(prediction, content.JSON) + "\n"


def model_files(model_dir, endings=()):
    """Names of the files at the top of the model, code and hidden files left out, in order."""
    try:
        names = sorted(os.listdir(model_dir))
    except FileNotFoundError:
        return []
    return [
        name
        for name in names
        if not name.startswith(".")
        and os.path.isfile(os.path.join(model_dir, name))
        and (not endings or name.lower().endswith(tuple(endings)))
    ]


def load_pickle(path):
    """Loads a file written by joblib or pickle."""
    try:
        import joblib
    except ImportError:
        import pickle

        with open(path, "rb") as file:
            return pickle.load(file)
    return joblib.load(path)
