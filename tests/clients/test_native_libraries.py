"""The native engine against the real libraries, on thousands of rows with missing values and categories."""

import json

import lightgbm
import numpy
import pytest
import xgboost
from test_native import native  # noqa: F401

ROWS = 4000
FEATURES = 12
CATEGORIES = 2


def table(seed, rows):
    """Numbers, some of them whole, some missing; the last columns are categories."""
    random = numpy.random.default_rng(seed)
    values = random.normal(size=(rows, FEATURES)).astype(numpy.float32).astype(float)
    values[:, 3] = random.integers(-3, 4, rows)
    values[:, -1] = random.integers(0, 60, rows)
    values[:, -2] = random.integers(0, 4, rows)
    values[random.random(values.shape) < 0.1] = numpy.nan
    return values


def labels(values, classes):
    full = numpy.nan_to_num(values)
    score = full[:, 0] + full[:, 1] * full[:, 3] + (full[:, -1] % 5) - 2
    return numpy.digitize(score, numpy.quantile(score, numpy.linspace(0, 1, classes + 1)[1:-1])).astype(float)


def asked(endpoints, name, values):
    body = "\n".join(",".join("" if numpy.isnan(cell) else repr(float(cell)) for cell in row) for row in values)
    answer = endpoints.invoke(name, body, ContentType="text/csv", Accept="application/json")
    return numpy.array([row["score"] for row in json.load(answer["Body"])["predictions"]])


@pytest.mark.parametrize("suffix", ["json", "ubj"])
def test_xgboost(native, endpoints, tmp_path, suffix):  # noqa: F811
    types = ["q"] * (FEATURES - CATEGORIES) + ["c"] * CATEGORIES
    values = table(1, 3000)
    matrix = xgboost.DMatrix(values, labels(values, 3), feature_types=types, enable_categorical=True)
    booster = xgboost.train({"objective": "multi:softprob", "num_class": 3, "max_depth": 7, "nthread": 1}, matrix, 30)
    booster.save_model(tmp_path / f"model.{suffix}")
    name = f"native-library-{suffix}"
    native(name, {"xgboost-model": (tmp_path / f"model.{suffix}").read_bytes()})
    rows = table(2, ROWS)
    expected = booster.predict(xgboost.DMatrix(rows, feature_types=types, enable_categorical=True))
    numpy.testing.assert_allclose(asked(endpoints, name, rows), expected, rtol=2e-6, atol=1e-9)


def test_lightgbm(native, endpoints, tmp_path):  # noqa: F811
    values = table(3, 3000)
    columns = list(range(FEATURES - CATEGORIES, FEATURES))
    settings = {"objective": "binary", "num_leaves": 63, "verbose": -1, "num_threads": 1}
    booster = lightgbm.train(settings, lightgbm.Dataset(values, labels(values, 2), categorical_feature=columns), 60)
    booster.save_model(tmp_path / "model.txt")
    native("native-library-lightgbm", {"model.txt": (tmp_path / "model.txt").read_bytes()})
    rows = table(4, ROWS)
    numpy.testing.assert_allclose(asked(endpoints, "native-library-lightgbm", rows), booster.predict(rows), rtol=1e-12)
