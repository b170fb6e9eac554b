"""Transform jobs that the native engine and the ONNX Runtime answer: chosen as for endpoints, with the same answers."""

import json

import pytest
from conftest import BASE_IMAGE, archive, poll, stop_all
from faults import FaultyServer, perhaps_its_last
from test_native import CASES, MODELS, XGBOOST, csv, deploy
from test_onnx import SCIKIT_LEARN, case, models  # noqa: F401
from test_transform import Transforms

LOGISTIC = {"xgboost-model": (MODELS / "logistic.ubj").read_bytes()}


@pytest.fixture(scope="module")
def transforms(server, bucket, role):
    return Transforms(server, bucket, role)


def create(transforms, name, files, image, **environment):
    uri = transforms.put(f"models/{name}.tar.gz", archive(files))
    container = {"Image": image, "ModelDataUrl": uri, "Environment": environment}
    transforms.sagemaker.create_model(ModelName=name, ExecutionRoleArn=transforms.role, PrimaryContainer=container)


def test_an_xgboost_model_is_transformed_without_python(transforms, server):
    name = "engines-xgboost"
    assert deploy(transforms.endpoints, name, LOGISTIC)["EndpointStatus"] == "InService"
    rows = CASES["logistic.ubj"]["rows"] * 50
    answered = transforms.endpoints.invoke(name, csv(rows), ContentType="text/csv")["Body"].read().decode()
    transforms.endpoints.delete(name)
    # The environment of the image has no XGBoost: Python could not answer.
    transforms.run(name, name, {"a.csv": csv(rows), "b.csv": csv(rows[:1])}, output={"AssembleWith": "Line"}, count=2)
    assert transforms.get(name, "a.csv.out").split() == answered.split(",")
    assert transforms.get(name, "b.csv.out").split() == answered.split(",")[:1]
    single = f"{name}-records"
    joined = {"JoinSource": "Input", "OutputFilter": "$[-1]"}
    transforms.run(single, name, {"a.csv": csv(rows)}, BatchStrategy="SingleRecord", MaxConcurrentTransforms=8, DataProcessing=joined)
    assert transforms.get(single, "a.csv.out").split() == answered.split(",")
    for shown in (server.command("jobs", "show", name), server.command("jobs", "why", name)):
        assert "Answered by the native engine: xgboost-model is an XGBoost model of 6 trees over 6 features, objective binary:logistic." in shown
    assert "engine native: xgboost-model is an XGBoost model" in server.command("logs", name)


def test_rows_that_the_engine_refuses_are_named(transforms, server):
    name = "engines-refused"
    create(transforms, name, LOGISTIC, XGBOOST)
    transforms.start(name, name, {"a.csv": "1,2,3,4,5,6\n1,2,x\n"}, BatchStrategy="SingleRecord")
    job = transforms.wait(name)
    assert job["TransformJobStatus"] == "Failed"
    assert "Loading csv data failed" in server.command("jobs", "why", name), job["FailureReason"]


def test_a_wish_that_cannot_be_fulfilled_fails_the_job(transforms):
    name = "engines-wish"
    create(transforms, name, {"xgboost-model": b"\x80\x04\x95"}, XGBOOST)
    transforms.start(name, name, {"a.csv": "1\n"}, Environment={"MODELYARD_ENGINE": "native"})
    job = transforms.wait(name)
    assert job["TransformJobStatus"] == "Failed"
    assert "asks for the native engine, but xgboost-model is for Python: it is a pickle" in job["FailureReason"]


def test_a_graph_and_a_converted_model_are_transformed_by_the_runtime(transforms, server, models):  # noqa: F811
    for name, files, image, why in [
        ("forest", {"forest.onnx": (models / "forest.onnx").read_bytes()}, BASE_IMAGE, "forest.onnx is an ONNX graph"),
        ("logistic", {"model.joblib": (models / "logistic.joblib").read_bytes()}, SCIKIT_LEARN, "whose ONNX graph gave the same answers"),
    ]:
        expected, job = case(models, name), f"engines-{name}"
        create(transforms, job, files, image)
        lines = "".join(json.dumps([row]) + "\n" for row in expected["rows"])
        transforms.run(job, job, {"a.json": lines}, "application/json", BatchStrategy="SingleRecord", MaxConcurrentTransforms=4,
                       output={"AssembleWith": "Line"})
        answers = [json.loads(line)[0] for line in transforms.get(job, "a.json.out").splitlines()]
        assert answers == expected["answers"]
        shown = server.command("jobs", "show", job)
        assert "Answered by the ONNX Runtime: " in shown and why in shown


def test_a_job_goes_on_with_its_engine_after_a_crash(tmp_path):
    server = FaultyServer(tmp_path).start()
    try:
        server.client("s3").create_bucket(Bucket="engines")
        role = server.client("iam").get_role(RoleName="ModelyardExecutionRole")["Role"]["Arn"]
        transforms = Transforms(server, "engines", role)
        create(transforms, "crash", LOGISTIC, XGBOOST)
        body = csv(CASES["logistic.ubj"]["rows"] * 20)
        transforms.run("before", "crash", {"a.csv": body})
        for point in ("transform-write", "transform-stored"):
            server.arm(point)
            with perhaps_its_last(server):
                transforms.start(point, "crash", {"a.csv": body, "b.csv": body})
            poll(server.has_died, f"{point} ends the server")
            server.restart()
            job = transforms.wait(point)
            assert job["TransformJobStatus"] == "Completed", job.get("FailureReason")
            for key in ("a.csv.out", "b.csv.out"):
                assert transforms.get(point, key) == transforms.get("before", "a.csv.out")
            assert "Answered by the native engine" in server.command("jobs", "why", point)
    finally:
        stop_all(server)
