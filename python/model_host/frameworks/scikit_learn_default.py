"""The scikit-learn defaults: what its serving container does, and a model_fn for the usual single file."""
import os

from model_host import content
from model_host.frameworks.base import DefaultFunctions, load_pickle, model_files

_ENDINGS = (".joblib", ".pkl", ".pickle")


class ScikitLearnDefault(DefaultFunctions):
    """CSV and JSON arrive as float32 arrays and go through `model.predict`."""

    @classmethod
    def alone(cls, model_dir):
        return cls() if _find(model_dir) else None

    def model_fn(self, model_dir):
        name = _find(model_dir)
        if name is None:
            return super().model_fn(model_dir)
        return load_pickle(os.path.join(model_dir, name))

    def why_no_model(self, model_dir):
        return "there is no single file {} in {} (found: {})".format(
            ", ".join("*" + ending for ending in _ENDINGS), model_dir, model_files(model_dir)
        )

    def input_fn(self, body, content_type):
        data = content.decode(body, content_type)
        if content.media_type(content_type) in content.UTF8_TYPES and hasattr(data, "astype"):
            return data.astype("float32")
        return data

    def predict_fn(self, data, model):
        return model.predict(data)


def _find(model_dir):
    candidates = model_files(model_dir, _ENDINGS)
    if "model.joblib" in candidates:
        return "model.joblib"
    return candidates[0] if len(candidates) == 1 else None
