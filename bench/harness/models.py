"""Models that several measurements are made on."""

import io
import subprocess

import joblib
from sklearn.linear_model import LinearRegression

from harness import BENCH
from harness.environments import environment

WEB = ["numpy==2.4.6", "scipy==1.17.1", "fastapi==0.165.0", "uvicorn==0.54.0", "uvloop==0.23.0", "httptools==0.9.0"]

SCRIPT = b"""
import json, os
import joblib

def model_fn(model_dir):
    return joblib.load(os.path.join(model_dir, "model.joblib"))

def input_fn(body, content_type):
    return json.loads(body)

def predict_fn(rows, model):
    return model.predict(rows)

def output_fn(prediction, accept):
    return json.dumps(prediction.tolist()), "application/json"
"""


class Subject:
    """An engine with its model, and the peer on the same model."""

    def __init__(self, engine, library, image, pins, model, rows, file, most_ms, script=None):
        self.engine, self.library, self.image = engine, library, image
        self.pins = pins + WEB
        # Files that the peer writes, and what the first is called in the model.
        self.model, self.rows, self.file = model, rows, file
        # Most time from CreateEndpoint to InService.
        self.most_ms = most_ms
        # The functions of SageMaker's own container, where it has one for such models.
        self.script = script
        self.name = f"bench-{engine}"
        self.peer = BENCH / f"peers/{library}_fastapi.py"

    def trained(self, folder):
        """Trains the model in an environment of its own: that one's Python, and the model's bytes. Rows lie in the folder."""
        python = environment(f"bench-{self.library}", self.pins) / "bin/python"
        subprocess.run([python, self.peer, folder], check=True)
        return python, (folder / self.model).read_bytes()


SUBJECTS = [
    Subject(
        "native", "xgboost", "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-xgboost:1.7-1", ["xgboost-cpu==3.2.0"],
        "xgboost-model.ubj", "rows.json", "xgboost-model", 50, BENCH / "model/boosted_inference.py",
    ),
    Subject(
        "onnx", "onnx", "python:3", ["onnxruntime==1.31.1", "onnx==1.23.2", "skl2onnx==1.20.0", "scikit-learn==1.9.1"],
        "model.onnx", "onnx-rows.json", "model.onnx", 500,
    ),
]


def linear_model():
    """The files of a small scikit-learn model with a script: what starts is what is measured."""
    buffer = io.BytesIO()
    joblib.dump(LinearRegression().fit([[0, 0], [1, 2], [3, 1]], [0, 5, 5]), buffer)
    return {"model.joblib": buffer.getvalue(), "code/inference.py": SCRIPT}
