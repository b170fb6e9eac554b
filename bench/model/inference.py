"""The user's inference script: both serving stacks run this same file."""

import json
import os

import joblib
import numpy


def model_fn(model_dir):
    return joblib.load(os.path.join(model_dir, "model.joblib"))


def input_fn(body, content_type):
    if content_type != "application/json":
        raise ValueError(f"this model reads application/json, not {content_type}")
    return numpy.asarray(json.loads(body), dtype=numpy.float32)


def predict_fn(rows, model):
    return model.predict_proba(rows)[:, 1]


def output_fn(prediction, accept):
    return json.dumps(prediction.tolist()), "application/json"
