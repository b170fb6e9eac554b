"""Requests that are answered by one call of the model: the same bytes as one by one, with the real libraries, and under load."""

import concurrent.futures
import io
import json
import pickle
import random
import re
import sys
import urllib.request

import joblib
import numpy
import pytest
from conftest import BASE_IMAGE, ROOT, poll
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import (
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier
from test_native import deploy as deploy_files
from test_onnx import case, models  # noqa: F401

sys.path.insert(0, str(ROOT / "python"))
from model_host.model import Model  # noqa: E402

FEATURES = 7
SCIKIT_LEARN = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn:1.2-1-cpu-py3"


def data(seed, rows=400):
    chance = numpy.random.default_rng(seed)
    table = chance.normal(size=(rows, FEATURES))
    return table, (table[:, 0] + table[:, 1] ** 2 + chance.normal(scale=0.1, size=rows))


def classes(seed):
    table, target = data(seed)
    return table, numpy.array(["low", "middle", "high"])[numpy.digitize(target, [0.0, 1.0])]


TREES = {"n_estimators": 6, "random_state": 1}


def two_targets():
    table, target = data(4)
    return ExtraTreesRegressor(**TREES).fit(table, numpy.stack([target, -target], axis=1))


def lightgbm():
    from lightgbm import LGBMRegressor

    return LGBMRegressor(n_estimators=12, verbose=-1).fit(*data(9))


def booster():
    import xgboost

    table, labels = classes(11)
    matrix = xgboost.DMatrix(table, numpy.unique(labels, return_inverse=True)[1])
    return xgboost.train({"objective": "multi:softprob", "num_class": 3, "max_depth": 4}, matrix, 8)


def xgboost_wrapper():
    from xgboost import XGBRegressor

    return XGBRegressor(n_estimators=12).fit(*data(10))


# Each kind of model that is joined without a word.
KINDS = {
    "tree": lambda: DecisionTreeClassifier(max_depth=5).fit(*classes(1)),
    "forest": lambda: RandomForestClassifier(**TREES).fit(*classes(2)),
    "forest-regressor": lambda: RandomForestRegressor(**TREES).fit(*data(3)),
    "two-targets": two_targets,
    "boosting": lambda: GradientBoostingClassifier(**TREES).fit(*classes(5)),
    "histogram-boosting": lambda: HistGradientBoostingRegressor(max_iter=10).fit(*data(6)),
    "pipeline": lambda: make_pipeline(SimpleImputer(), StandardScaler(), RandomForestRegressor(**TREES)).fit(*data(7)),
    "dummy": lambda: DummyClassifier().fit(*classes(8)),
    "lightgbm": lightgbm,
    "xgboost-wrapper": xgboost_wrapper,
    "booster": booster,
}


def load(folder, framework, model, **environment):
    name, dump = ("xgboost-model", pickle.dump) if framework == "xgboost" else ("model.joblib", joblib.dump)
    with open(folder / name, "wb") as file:
        dump(model, file)
    return Model(framework, str(folder), environment=environment)


def body(chance, rows):
    """A request for these rows in one of the forms."""
    form = chance.choice(["application/json", "text/csv", "application/x-npy"])
    accept = chance.choice(["application/json", "text/csv", "application/x-npy", "application/json, text/csv", None])
    if form == "application/json":
        text = json.dumps(rows.tolist()).encode()
    elif form == "text/csv":
        text = "\n".join(",".join(map(repr, row)) for row in rows.tolist()).encode()
    else:
        file = io.BytesIO()
        numpy.save(file, rows)
        text = file.getvalue()
    return {"content_type": form, "accept": accept}, memoryview(text)


def untimed(answer):
    """An answer without the time of day that XGBoost writes into its errors."""
    return re.sub(rb"\[\d\d:\d\d:\d\d\]", b"", bytes(answer))


@pytest.mark.parametrize("kind", KINDS)
def test_joined_answers_are_those_of_one_by_one_to_the_byte(kind, tmp_path, capfd):
    framework = "xgboost" if kind == "booster" else "scikit-learn"
    model = load(tmp_path, framework, KINDS[kind]())
    assert model.batch_limit() == 1024
    chance, rows, calls, requests = random.Random(kind), 0, 0, 0
    for turn in range(16):
        table, _ = data(turn + 100, rows=600)
        batch, at = [], 0
        for _ in range(chance.randint(2, 24)):
            count = chance.choice([1, 1, 2, 3, chance.randint(4, 30)])
            part = table[at:at + count]
            if chance.random() < 0.03:
                part = part[:, 1:]  # too few columns: this one fails, and no other
            if chance.random() < 0.005:
                part = numpy.where(part > 1, numpy.inf, part)
            batch.append(body(chance, part))
            at += count
        made = []
        joined = list(model.invoke_together(batch, lambda: made.append(1)))
        for (header, text), answer in zip(batch, joined, strict=True):
            alone = model.invoke(header, text)
            assert (answer.status, answer.content_type, untimed(answer.body)) == (alone.status, alone.content_type, untimed(alone.body))
        rows, calls, requests = rows + at, calls + len(made), requests + len(batch)
    capfd.readouterr()
    assert rows > 500 and calls < requests * 0.8, (rows, calls, requests)


def test_models_that_multiply_matrices_are_joined_only_when_the_environment_says_so(tmp_path):
    model = LogisticRegression().fit(*classes(1))
    assert load(tmp_path, "scikit-learn", model).batch_limit() == 1
    assert load(tmp_path, "scikit-learn", make_pipeline(StandardScaler(), model)).batch_limit() == 1
    dice = DummyClassifier(strategy="stratified", random_state=1).fit(*classes(1))
    assert load(tmp_path, "scikit-learn", dice).batch_limit() == 1
    assert load(tmp_path, "scikit-learn", model, MODEL_HOST_BATCH="rows").batch_limit() == 1024


# Nothing but the model: input, prediction and output are the host's own.
FOREST = """
def model_fn(model_dir):
    import numpy
    from sklearn.ensemble import RandomForestRegressor
    table = numpy.arange(800.0).reshape(200, 4) % 37
    return RandomForestRegressor(n_estimators=20, random_state=1).fit(table, table.sum(axis=1))
"""


def deploy(endpoints, name, script, **environment):
    described = endpoints.deploy(name, script, Image=SCIKIT_LEARN, Environment=environment)
    assert described["EndpointStatus"] == "InService", described.get("FailureReason")


def batches(server, name):
    return json.loads(server.command("endpoints", "show", name, "--output", "json"))["Batches"]


def test_waiting_requests_share_calls_and_each_has_its_own_answer(endpoints, server):
    name = "batching-forest"
    deploy(endpoints, name, FOREST, SAGEMAKER_MODEL_SERVER_WORKERS="1")
    assert batches(server, name) == [{"VariantName": name, "Limit": 64, "Batches": 0, "Requests": 0, "MeanSize": None}]
    bodies = [json.dumps([[(turn * 7 + at) % 37 for at in range(4)] for _ in range(1 + turn % 3)]) for turn in range(24)]
    expected = [endpoints.invoke(name, body)["Body"].read() for body in bodies]
    assert len(set(expected)) > 12 and batches(server, name)[0]["Batches"] == 0
    runtimes = [server.client("sagemaker-runtime") for _ in range(12)]

    def ask(number):
        def invoke(at):
            return runtimes[number].invoke_endpoint(EndpointName=name, Body=bodies[at], ContentType="application/json")

        order = random.Random(number).sample(range(len(bodies)), len(bodies))
        return [(at, invoke(at)["Body"].read()) for at in order]

    def joined():
        with concurrent.futures.ThreadPoolExecutor(len(runtimes)) as pool:
            for answers in pool.map(ask, range(len(runtimes))):
                assert all(answer == expected[at] for at, answer in answers)
        return batches(server, name)[0]["Batches"] > 0

    poll(joined, "requests have waited for each other")
    counted = batches(server, name)[0]
    assert counted["Requests"] >= 2 * counted["Batches"] and counted["MeanSize"] >= 2
    assert "ANSWERED TOGETHER" in server.command("endpoints", "show", name)
    with urllib.request.urlopen(server.endpoint + "/_modelyard/metrics") as page:
        lines = [line for line in page.read().decode().splitlines() if f'endpoint="{name}"' in line]
    sizes = [line for line in lines if line.startswith("modelyard_endpoint_batch_size_count")]
    assert len(sizes) == 1 and float(sizes[0].split()[-1]) >= counted["Batches"]
    endpoints.delete(name)


def test_a_graph_of_trees_gives_the_same_bytes_together(endpoints, server, models):  # noqa: F811
    name = "batching-graph"
    files = {"forest.onnx": (models / "forest.onnx").read_bytes()}
    variables = {"SAGEMAKER_MODEL_SERVER_WORKERS": "1", "SAGEMAKER_INFERENCE_OUTPUT": "predicted_label,probabilities"}
    described = deploy_files(endpoints, name, files, image=BASE_IMAGE, **variables)
    assert described["EndpointStatus"] == "InService", described.get("FailureReason")
    rows = case(models, "forest")["rows"]
    bodies = [json.dumps(rows[at:at + 1 + at % 5]) for at in range(0, 120, 2)] + ["[[1]]", "nothing"]

    def ask(runtime, body):
        try:
            return runtime.invoke_endpoint(EndpointName=name, Body=body, ContentType="application/json")["Body"].read()
        except runtime.exceptions.ModelError as error:
            return error.response["OriginalStatusCode"], error.response["OriginalMessage"]

    expected = [ask(endpoints.runtime, body) for body in bodies]
    assert [type(answer) for answer in expected[-3:]] == [bytes, tuple, tuple]
    runtimes = [server.client("sagemaker-runtime") for _ in range(12)]

    def shuffled(number):
        order = random.Random(number).sample(range(len(bodies)), len(bodies))
        return [(at, ask(runtimes[number], bodies[at])) for at in order]

    def joined():
        with concurrent.futures.ThreadPoolExecutor(len(runtimes)) as pool:
            for answers in pool.map(shuffled, range(len(runtimes))):
                assert all(answer == expected[at] for at, answer in answers)
        return batches(server, name)[0]["Requests"] > 100

    poll(joined, "requests have waited for each other")
    endpoints.delete(name)


def test_a_wish_that_cannot_be_fulfilled_fails_the_endpoint_and_says_why(endpoints):
    script = "def model_fn(model_dir): return 1\ndef transform_fn(model, body, content_type, accept): return body\n"
    described = endpoints.deploy("batching-transform", script, Environment={"MODEL_HOST_BATCH": "rows"})
    assert described["EndpointStatus"] == "Failed"
    assert "MODEL_HOST_BATCH=rows needs input_fn, predict_fn and output_fn" in described["FailureReason"]
    endpoints.delete("batching-transform")
