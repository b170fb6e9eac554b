"""What SageMaker's XGBoost container does with a row of CSV."""

import os

import numpy
import xgboost


def model_fn(model_dir):
    return xgboost.Booster({"nthread": 1}, model_file=os.path.join(model_dir, "xgboost-model.ubj"))


def input_fn(body, content_type):
    text = body if isinstance(body, str) else body.decode()
    rows = numpy.array([line.split(",") for line in text.splitlines()], dtype=numpy.float32)
    # A thread each, as for every side: the workers are as many as the processors.
    return xgboost.DMatrix(rows, nthread=1)


def predict_fn(rows, model):
    return model.predict(rows)


def output_fn(prediction, accept):
    return ",".join(map(str, prediction.tolist())), "text/csv"
