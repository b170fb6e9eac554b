"""The answer for a model that comes without an inference script and that no framework default can load.

The endpoint comes into service and says, with every invocation, what it found and what is missing: so the wiring can be
tried before the model is complete.
"""
import json
import os
import sys

from model_host import content
from model_host.frameworks.base import DefaultFunctions, model_files

_MAX_JSON_BYTES = 1024 * 1024


class DescribeModel(DefaultFunctions):
    """Answers with a description of the model and with the input as it was understood."""

    def __init__(self, framework):
        self._note = (
            "This model has no inference script (code/inference.py) and no file that the {} default can load. "
            "The host answers with the model's description and the input it got.".format(framework)
        )

    def model_fn(self, model_dir):
        print("WARNING: " + self._note, file=sys.stderr, flush=True)
        files = model_files(model_dir)
        model = {"files": files}
        described = [name for name in files if name.endswith(".json")]
        if "model.json" in described:
            described = ["model.json"]
        if len(described) == 1 and os.path.getsize(os.path.join(model_dir, described[0])) <= _MAX_JSON_BYTES:
            try:
                with open(os.path.join(model_dir, described[0]), encoding="utf-8") as file:
                    model[described[0]] = json.load(file)
            except ValueError as error:
                model[described[0]] = "not readable as JSON: {}".format(error)
        return model

    def input_fn(self, body, content_type):
        kind = content.media_type(content_type)
        try:
            if kind == content.JSON:
                return json.loads(content.text(body))
            if kind.startswith("text/"):
                return content.text(body)
        except ValueError as error:
            return {"content_type": content_type, "bytes": len(body), "problem": str(error)}
        return {"content_type": content_type, "bytes": len(body)}

    def predict_fn(self, data, model):
        return {"model": model, "input": data, "note": self._note}

    def output_fn(self, prediction, accept):
        return json.dumps(prediction), content.JSON
