"""Models that the server answers for itself: which get the native engine, why, and what it says."""

import json
import time
from pathlib import Path

import pytest
from conftest import BASE_IMAGE, ROOT, Endpoints, archive, poll

MODELS = ROOT / "crates/serving/tests/models"
XGBOOST = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-xgboost:1.7-1"
CASES = {case["model"]: case for case in json.loads((MODELS / "cases.json").read_text())}


def csv(rows):
    """Rows as CSV; a missing value is an empty cell."""
    return "\n".join(",".join("" if cell is None else repr(cell) for cell in row) for row in rows)


def deploy(endpoints, name, files, image=XGBOOST, **environment):
    """An endpoint of a model of these files; returns its description once it has settled."""
    key = f"native/{name}/model.tar.gz"
    endpoints.s3.put_object(Bucket=endpoints.bucket, Key=key, Body=archive(files))
    container = {"Image": image, "ModelDataUrl": f"s3://{endpoints.bucket}/{key}", "Environment": environment}
    endpoints.sagemaker.create_model(ModelName=name, ExecutionRoleArn=endpoints.role, PrimaryContainer=container)
    endpoints.config(name, **{name: 1.0})
    endpoints.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    return endpoints.wait(name)


def model(case, name="xgboost-model"):
    return {name: (MODELS / case).read_bytes()}


def scores(answer):
    return [row["score"] for row in json.load(answer["Body"])["predictions"]]


@pytest.fixture
def native(endpoints, request):
    """Deploys a model that must get into service; the endpoint goes when the test ends."""
    deployed = []

    def make(name, files, **options):
        endpoint = deploy(endpoints, name, files, **options)
        deployed.append(name)
        assert endpoint["EndpointStatus"] == "InService", endpoint.get("FailureReason")

    yield make
    for name in deployed:
        endpoints.delete(name)


def test_an_xgboost_model_is_answered_without_python(native, endpoints, server):
    case = CASES["logistic.ubj"]
    native("native-logistic", model("logistic.ubj"))
    shown = server.command("endpoints", "show", "native-logistic")
    assert "native" in shown and "xgboost-model is an XGBoost model of 6 trees over 6 features" in shown
    assert "engine native: xgboost-model is an XGBoost model" in server.command("logs", "native-logistic")
    assert not list(Path(server.data_dir, "replicas").glob("*native-logistic*"))
    expected = pytest.approx(case["predictions"], rel=1e-6)
    body = csv(case["rows"])
    answer = endpoints.invoke("native-logistic", body, ContentType="text/csv", Accept="application/json")
    assert scores(answer) == expected and answer["ContentType"] == "application/json"
    answer = endpoints.invoke("native-logistic", body, ContentType="text/csv")
    assert answer["ContentType"] == "text/csv"
    assert [float(score) for score in answer["Body"].read().split(b",")] == expected
    answer = endpoints.invoke("native-logistic", json.dumps(case["rows"]), Accept="application/jsonlines")
    assert [json.loads(line)["score"] for line in answer["Body"].read().splitlines()] == expected
    sparse = "\n".join(" ".join(f"{at}:{cell!r}" for at, cell in enumerate(row) if cell is not None) or "0" for row in case["rows"])
    answer = endpoints.invoke("native-logistic", sparse, ContentType="text/x-libsvm", Accept="application/json")
    assert scores(answer) == expected
    stream = endpoints.runtime.invoke_endpoint_with_response_stream(
        EndpointName="native-logistic", Body=body, ContentType="text/csv", Accept="application/json"
    )
    parts = b"".join(event["PayloadPart"]["Bytes"] for event in stream["Body"])
    assert [row["score"] for row in json.loads(parts)["predictions"]] == expected


def test_wrong_requests_have_the_codes_of_the_container(native, endpoints):
    native("native-wrong", model("regression.json"))
    for body, options, status, says in [
        (b"1,2,3,4,5,6,7", {"ContentType": "text/csv"}, 400, "Feature size of csv inference data 7 is not consistent"),
        (b"1,2,a", {"ContentType": "text/csv"}, 415, "Loading csv data failed"),
        (b"[[1,2],[3]]", {"ContentType": "application/json"}, 415, "row 2 has 1 values"),
        (b"x", {"ContentType": "image/png"}, 415, "image/png is not supported"),
        (b"1", {"ContentType": "text/csv", "Accept": "image/png"}, 406, "Accept type image/png"),
    ]:
        with pytest.raises(endpoints.runtime.exceptions.ModelError) as caught:
            endpoints.invoke("native-wrong", body, **options)
        assert caught.value.response["OriginalStatusCode"] == status
        assert says in caught.value.response["OriginalMessage"]


def test_parts_of_answers_can_be_selected(native, endpoints):
    case = CASES["softprob.ubj"]
    native("native-selected", model("softprob.ubj"), SAGEMAKER_INFERENCE_OUTPUT="predicted_label, probabilities")
    answer = endpoints.invoke("native-selected", csv(case["rows"][:3]), ContentType="text/csv", Accept="application/json")
    for row, probabilities in zip(json.load(answer["Body"])["predictions"], case["predictions"]):
        assert row["probabilities"] == pytest.approx(probabilities, rel=1e-5)
        assert row["predicted_label"] == probabilities.index(max(probabilities))


def test_the_engine_can_be_chosen(native, endpoints, server):
    name = "native-lightgbm"
    native(name, model("categories.txt", "model.txt"), image=BASE_IMAGE)
    case = CASES["categories.txt"]
    answer = endpoints.invoke(name, csv(case["rows"]), ContentType="text/csv", Accept="application/json")
    assert scores(answer) == pytest.approx(case["predictions"], rel=1e-12)
    native("native-not", model("categories.txt", "model.txt"), image=BASE_IMAGE, MODELYARD_ENGINE="python")
    shown = json.loads(server.command("endpoints", "show", "native-not", "--output", "json"))
    assert [(engine["Engine"], engine["Reason"]) for engine in shown["Engines"]] == [("python", "MODELYARD_ENGINE asks for it")]
    assert "no inference script" in json.load(endpoints.invoke("native-not", b"{}")["Body"])["note"]


def test_wishes_that_cannot_be_fulfilled_are_refused(endpoints):
    with pytest.raises(endpoints.sagemaker.exceptions.ClientError, match='"fast" is no engine; say native, onnx or python'):
        deploy(endpoints, "native-fast", model("regression.json"), MODELYARD_ENGINE="fast")
    files = {**model("regression.json"), "code/inference.py": "def model_fn(model_dir): return 1"}
    for name, files, says in [
        ("native-script", files, "asks for the native engine, but the model has an inference script, code/inference.py"),
        ("native-pickle", {"xgboost-model": b"\x80\x04\x95"}, "it is a pickle, which only Python can load"),
        ("native-cox", model("refused-cox.ubj"), "survival:cox"),
    ]:
        endpoint = deploy(endpoints, name, files, MODELYARD_ENGINE="native")
        assert endpoint["EndpointStatus"] == "Failed" and says in endpoint["FailureReason"]
        endpoints.delete(name)


def test_a_restarted_server_answers_again(own_server):
    role = own_server.client("iam").get_role(RoleName="ModelyardExecutionRole")["Role"]["Arn"]
    own_server.client("s3").create_bucket(Bucket="native")
    endpoints = Endpoints(own_server, "native", role)
    assert deploy(endpoints, "restarted", model("poisson.ubj"))["EndpointStatus"] == "InService"
    case = CASES["poisson.ubj"]
    own_server.kill()
    own_server.start()
    started = time.monotonic()
    endpoints = Endpoints(own_server, "native", role)

    def answered():
        try:
            return endpoints.invoke("restarted", csv(case["rows"]), ContentType="text/csv", Accept="application/json")
        except endpoints.runtime.exceptions.ClientError:
            return None

    answer = poll(answered, "the endpoint answers again", 30)
    assert time.monotonic() - started < 10
    assert scores(answer) == pytest.approx(case["predictions"], rel=1e-6)
    endpoints.sagemaker.update_endpoint(EndpointName="restarted", EndpointConfigName="restarted")
    endpoints.wait("restarted")
    assert answered()
