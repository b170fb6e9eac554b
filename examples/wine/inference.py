"""Serves the classifier of wines."""

import json
from pathlib import Path

import joblib
import numpy as np

CULTIVARS = ["class_0", "class_1", "class_2"]


def model_fn(model_dir):
    return joblib.load(Path(model_dir) / "model.joblib")


def input_fn(body, content_type):
    if content_type != "application/json":
        raise ValueError(f"rows come as application/json, not as {content_type}")
    return np.array(json.loads(body))


def predict_fn(rows, model):
    return [CULTIVARS[label] for label in model.predict(rows)]


def output_fn(names, accept):
    return json.dumps(names), "application/json"
