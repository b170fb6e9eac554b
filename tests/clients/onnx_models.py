"""`onnx_models.py FOLDER`: makes models with the real libraries, and what they answer on thousands of rows."""

import json
import sys
from pathlib import Path

import joblib
import numpy
import onnx
import onnxruntime
from onnx import TensorProto, helper
from skl2onnx import to_onnx
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import GradientBoostingRegressor, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import SVC

ROWS, COLUMNS = 3000, 8
FOLDER = Path(sys.argv[1])
RANDOM = numpy.random.default_rng(5)


def values(rows=ROWS, missing=0.0):
    table = RANDOM.normal(size=(rows, COLUMNS)).astype(numpy.float32)
    table[RANDOM.random(table.shape) < missing] = numpy.nan
    return table


TRAINING = values(800)
SCORE = TRAINING[:, 0] + TRAINING[:, 1] * TRAINING[:, 2]
TEXTS = numpy.array(["low", "middle", "high"])[numpy.digitize(SCORE, [-0.5, 0.5])]
CLASSES = (SCORE > 0).astype(int)


def cells(table):
    return [[None if numpy.isnan(cell) else float(cell) for cell in row] for row in table]


def keep(name, rows, answers, **more):
    with open(FOLDER / f"{name}.json", "w") as file:
        json.dump({"rows": rows, "answers": answers, **more}, file)


def graphs():
    """Graphs as users bring them."""
    forest = RandomForestClassifier(30, max_depth=6, random_state=1).fit(TRAINING, TEXTS)
    graph = to_onnx(forest, TRAINING[:1])
    (FOLDER / "forest.onnx").write_bytes(graph.SerializeToString())
    rows = values()
    labels, maps = onnxruntime.InferenceSession(graph.SerializeToString()).run(None, {"X": rows})
    keep("forest", cells(rows), labels.tolist(), probabilities=[[one[text] for text in sorted(one)] for one in maps])

    # Two inputs of other types, two outputs that are no classifier's.
    nodes = [
        helper.make_node("Mul", ["size", "factor"], ["product"]),
        helper.make_node("Identity", ["name"], ["called"]),
    ]
    several = helper.make_graph(
        nodes,
        "several",
        [
            helper.make_tensor_value_info("size", TensorProto.FLOAT, [None, 2]),
            helper.make_tensor_value_info("name", TensorProto.STRING, [None]),
        ],
        [
            helper.make_tensor_value_info("product", TensorProto.FLOAT, [None, 2]),
            helper.make_tensor_value_info("called", TensorProto.STRING, [None]),
        ],
        [helper.make_tensor("factor", TensorProto.FLOAT, [1], [2.0])],
    )
    several = helper.make_model(several, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(several)
    (FOLDER / "several.onnx").write_bytes(several.SerializeToString())


def sklearn_models():
    """Models as scikit-learn's users pickle them."""
    with_missing = values(800, 0.2)
    models = {
        "logistic": (make_pipeline(StandardScaler(), LogisticRegression()).fit(TRAINING, TEXTS), values()),
        "ridge": (Ridge().fit(TRAINING, SCORE), values()),
        "boosting": (GradientBoostingRegressor(n_estimators=40, random_state=1).fit(TRAINING, SCORE), values()),
        "histogram": (HistGradientBoostingClassifier(max_iter=20, random_state=1).fit(with_missing, CLASSES), values(missing=0.2)),
        "imputed": (make_pipeline(SimpleImputer(), StandardScaler(), SVC()).fit(with_missing, CLASSES), values(missing=0.2)),
        "encoded": (
            make_pipeline(
                ColumnTransformer(
                    [("kinds", OneHotEncoder(handle_unknown="ignore"), [7]), ("numbers", StandardScaler(), list(range(7)))]
                ),
                RandomForestClassifier(20, max_depth=5, random_state=1),
            ).fit(rounded(TRAINING), CLASSES),
            rounded(values()),
        ),
    }
    for name, (model, rows) in models.items():
        joblib.dump(model, FOLDER / f"{name}.joblib")
        keep(name, cells(rows), model.predict(rows).tolist())
    words = RANDOM.choice(["red", "green", "blue"], (800, 2)).astype(object)
    model = make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression()).fit(words, words[:, 0] == words[:, 1])
    joblib.dump(model, FOLDER / "texts.joblib")
    words = RANDOM.choice(["red", "green", "blue", "new"], (ROWS, 2)).astype(object)
    keep("texts", words.tolist(), model.predict(words).tolist())
    own = make_pipeline(FunctionTransformer(numpy.tanh), Ridge()).fit(TRAINING, SCORE)
    joblib.dump(own, FOLDER / "own.joblib")
    rows = values(20)
    keep("own", cells(rows), own.predict(rows).tolist())


def rounded(table):
    table = table.copy()
    table[:, 7] = numpy.round(table[:, 7])
    return table


graphs()
sklearn_models()
