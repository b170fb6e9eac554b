"""Models that the ONNX Runtime answers for: graphs, and models of scikit-learn that are converted to graphs."""

import io
import json
import os
import subprocess
import threading
from pathlib import Path

import numpy
import pytest
from conftest import BASE_IMAGE, poll
from test_native import csv, deploy, native  # noqa: F401

PYTHON = os.environ.get("MODELYARD_ONNX_PYTHON")
SCIKIT_LEARN = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn:1.2-1-cpu-py3"


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """The folder of the models, and what they answer."""
    if not PYTHON:
        pytest.fail("MODELYARD_ONNX_PYTHON must name a Python with tests/clients/requirements-onnx.txt")
    folder = tmp_path_factory.mktemp("onnx")
    subprocess.run([PYTHON, Path(__file__).parent / "onnx_models.py", folder], check=True, timeout=300)
    return folder


def case(models, name):
    return json.loads((models / f"{name}.json").read_text())


def engine(server, name):
    shown = json.loads(server.command("endpoints", "show", name, "--output", "json"))
    return [(one["Engine"], one["Reason"]) for one in shown["Engines"]]


def test_a_graph_is_answered_without_python(native, endpoints, server, models):  # noqa: F811
    native("onnx-forest", {"forest.onnx": (models / "forest.onnx").read_bytes()}, image=BASE_IMAGE)
    assert engine(server, "onnx-forest") == [("onnx", "forest.onnx is an ONNX graph")]
    expected = case(models, "forest")
    rows, labels = expected["rows"], expected["answers"]
    answer = endpoints.invoke("onnx-forest", json.dumps(rows))
    assert answer["ContentType"] == "application/json" and json.load(answer["Body"]) == labels
    answer = endpoints.invoke("onnx-forest", json.dumps({"instances": rows}), Accept="text/csv")
    assert answer["ContentType"] == "text/csv" and answer["Body"].read().decode().split() == labels
    answer = endpoints.invoke("onnx-forest", csv(rows), ContentType="text/csv", Accept="application/jsonlines")
    assert [json.loads(line) for line in answer["Body"].read().splitlines()] == labels
    body = io.BytesIO()
    numpy.save(body, numpy.array(rows))
    answer = endpoints.invoke("onnx-forest", body.getvalue(), ContentType="application/x-npy", Accept="application/x-npy")
    assert numpy.load(io.BytesIO(answer["Body"].read())).tolist() == labels


def test_probabilities_are_chosen_by_name(native, endpoints, models):  # noqa: F811
    native("onnx-parts", {"forest.onnx": (models / "forest.onnx").read_bytes()}, image=BASE_IMAGE,
           SAGEMAKER_INFERENCE_OUTPUT="predicted_label, probability, probabilities")
    expected = case(models, "forest")
    answer = json.load(endpoints.invoke("onnx-parts", json.dumps(expected["rows"][:5]))["Body"])["predictions"]
    assert [one["predicted_label"] for one in answer] == expected["answers"][:5]
    for one, probabilities in zip(answer, expected["probabilities"]):
        assert [one["probabilities"][text] for text in sorted(one["probabilities"])] == pytest.approx(probabilities)
        assert one["probability"] == pytest.approx(max(probabilities))


def test_several_inputs_and_outputs_have_names(native, endpoints, models):  # noqa: F811
    native("onnx-several", {"several.onnx": (models / "several.onnx").read_bytes()}, image=BASE_IMAGE)
    expected = {"product": [[2.0, 4.0], [6.0, 8.0]], "called": ["red", "blue"]}
    rows = [{"size": [1, 2], "name": "red"}, {"size": [3, 4], "name": "blue"}]
    for body in [rows, {"instances": rows}, {"size": [[1, 2], [3, 4]], "name": ["red", "blue"]}, [[1, 2, "red"], [3, 4, "blue"]]]:
        assert json.load(endpoints.invoke("onnx-several", json.dumps(body))["Body"]) == expected
    answer = endpoints.invoke("onnx-several", "1,2,red\n3,4,blue\n", ContentType="text/csv")
    assert json.load(answer["Body"]) == expected
    for body, options, status, says in [
        (b"1,2", {"ContentType": "text/csv"}, 400, "the rows have 2 columns, and the model takes 3 (size, name)"),
        (b'{"size": [[1, 2]]}', {}, 400, "the input name is missing"),
        (b"1,x,red", {"ContentType": "text/csv"}, 400, 'the input size takes a number, not "x"'),
        (b"[[1,", {}, 415, "Loading json data failed"),
        (b"x", {"ContentType": "image/png"}, 415, "image/png is not supported"),
        (b"1,2,red", {"ContentType": "text/csv", "Accept": "text/csv"}, 406, "several outputs (product, called)"),
    ]:
        with pytest.raises(endpoints.runtime.exceptions.ModelError) as caught:
            endpoints.invoke("onnx-several", body, **options)
        assert caught.value.response["OriginalStatusCode"] == status
        assert says in caught.value.response["OriginalMessage"]


def test_a_file_that_is_no_graph_fails_the_endpoint(endpoints, models):
    good = (models / "forest.onnx").read_bytes()
    for name, content in [("onnx-bad", b"nothing"), ("onnx-torn", good[: len(good) // 2])]:
        endpoint = deploy(endpoints, name, {"model.onnx": content}, image=BASE_IMAGE)
        endpoints.delete(name)
        assert endpoint["EndpointStatus"] == "Failed"
        assert "model.onnx is no graph that the ONNX Runtime can run" in endpoint["FailureReason"]
    endpoint = deploy(endpoints, "onnx-none", {"notes": b"x"}, image=BASE_IMAGE, MODELYARD_ENGINE="onnx")
    endpoints.delete("onnx-none")
    assert "MODELYARD_ENGINE asks for the ONNX engine, but the model has no file in .onnx." in endpoint["FailureReason"]


def test_a_host_that_is_killed_comes_back(native, endpoints, server, models):  # noqa: F811
    name = "onnx-killed"
    native(name, {"forest.onnx": (models / "forest.onnx").read_bytes()}, image=BASE_IMAGE)
    rows, labels = (case(models, "forest")[part][:50] for part in ("rows", "answers"))
    body, stop = json.dumps(rows), threading.Event()
    good, failed = [], []

    def ask():
        runtime = server.client("sagemaker-runtime")
        while not stop.is_set():
            try:
                answer = runtime.invoke_endpoint(EndpointName=name, Body=body, ContentType="application/json")
                good.append(json.load(answer["Body"]))
            except runtime.exceptions.ClientError as error:
                failed.append(error)

    asking = [threading.Thread(target=ask) for _ in range(3)]
    for thread in asking:
        thread.start()
    poll(lambda: len(good) > 20, "the endpoint answers")
    for killed in hosts(server, name):
        os.kill(killed, 9)
    before = len(good)
    poll(lambda: len(good) > before + 50, "the endpoint answers again")
    stop.set()
    for thread in asking:
        thread.join()
    assert all(answer == labels for answer in good)
    # What the host had, and what found no other in the time that a request waits.
    assert len(failed) < 50, failed[:3]
    assert endpoints.sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"] == "InService"


def hosts(server, name):
    """The processes that hold a graph of an endpoint."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
            environ = (process / "mountinfo").read_text() if b"onnx-host" in words else ""
        except OSError:
            continue
        if f"{name}" in environ and str(server.data_dir) in environ:
            found.append(int(process.name))
    assert found, "the host's process was not found"
    return found


def asked(endpoints, name, rows):
    return json.load(endpoints.invoke(name, json.dumps(rows))["Body"])


@pytest.mark.parametrize("name", ["logistic", "boosting", "histogram", "imputed", "texts"])
def test_a_model_of_scikit_learn_is_converted(native, endpoints, server, models, name):  # noqa: F811
    endpoint = f"onnx-{name}"
    native(endpoint, {"model.joblib": (models / f"{name}.joblib").read_bytes()}, image=SCIKIT_LEARN)
    (chosen, reason) = engine(server, endpoint)[0]
    assert chosen == "onnx", reason
    assert "whose ONNX graph gave the same answers on" in reason
    expected = case(models, name)
    given = asked(endpoints, endpoint, expected["rows"])
    if isinstance(expected["answers"][0], float):
        numpy.testing.assert_allclose(given, expected["answers"], rtol=1e-5, atol=1e-6)
    else:
        assert given == expected["answers"]
    if name == "logistic":
        with pytest.raises(endpoints.runtime.exceptions.ModelError, match="contains NaN"):
            asked(endpoints, endpoint, [[None] * 8])


def test_what_cannot_be_converted_is_for_python(native, endpoints, server, models):  # noqa: F811
    # A transformer that the converter does not know, and an encoder of numbers whose graph takes 2.4 for 2.
    for name, says in [("own", "it cannot be converted"), ("encoded", "its graph gives another label")]:
        endpoint = f"onnx-{name}"
        native(endpoint, {"model.joblib": (models / f"{name}.joblib").read_bytes()}, image=SCIKIT_LEARN)
        (chosen, reason) = engine(server, endpoint)[0]
        assert chosen == "python" and f"model.joblib is for Python: {says}" in reason
        expected = case(models, name)
        numpy.testing.assert_allclose(asked(endpoints, endpoint, expected["rows"]), expected["answers"], rtol=1e-6)


def test_a_script_is_python_unless_onnx_is_asked_for(native, endpoints, server, models):  # noqa: F811
    loads = "import os, joblib\n\ndef model_fn(model_dir):\n    return joblib.load(os.path.join(model_dir, 'model.joblib'))\n"
    files = {"model.joblib": (models / "ridge.joblib").read_bytes(), "code/inference.py": loads}
    native("onnx-script", files, image=SCIKIT_LEARN)
    assert engine(server, "onnx-script") == [("python", "the model has an inference script, code/inference.py")]
    native("onnx-script-wish", files, image=SCIKIT_LEARN, MODELYARD_ENGINE="onnx")
    assert engine(server, "onnx-script-wish")[0][0] == "onnx"
    rows = case(models, "ridge")["rows"][:100]
    numpy.testing.assert_allclose(asked(endpoints, "onnx-script-wish", rows), asked(endpoints, "onnx-script", rows), rtol=1e-5)
