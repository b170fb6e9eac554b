"""Multi-model endpoints: models below a prefix, each loaded when a request names it."""

import json
import urllib.request
from pathlib import Path

import pytest
from conftest import BASE_IMAGE, ROOT, Endpoints, archive, poll

MODELS = ROOT / "crates/serving/tests/models"
XGBOOST = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-xgboost:1.7-1"
CASES = {case["model"]: case for case in json.loads((MODELS / "cases.json").read_text())}

SCRIPT = """
    import os

    def model_fn(model_dir):
        with open(os.path.join(model_dir, "name")) as file:
            return file.read()

    def transform_fn(model, body, content_type, accept):
        if body == "fail":
            raise ValueError("not " + model)
        return model + " " + body, "text/plain"
"""


def csv(rows):
    """Rows as CSV; a missing value is an empty cell."""
    return "\n".join(",".join("" if cell is None else repr(cell) for cell in row) for row in rows)


class MultiModel:
    """An endpoint whose models lie below a prefix of its own."""

    def __init__(self, endpoints, server, name):
        self.endpoints, self.server, self.name = endpoints, server, name
        self.prefix = f"multi-model/{name}/"

    def put(self, model, files):
        self.endpoints.s3.put_object(Bucket=self.endpoints.bucket, Key=self.prefix + model, Body=archive(files))

    def script(self, model, text="SCRIPT", script=SCRIPT):
        self.put(model, {"code/inference.py": script, "name": text})

    def deploy(self, image, config=None, **environment):
        container = {
            "Image": image,
            "Mode": "MultiModel",
            "ModelDataUrl": f"s3://{self.endpoints.bucket}/{self.prefix}",
            "Environment": environment,
            **({"MultiModelConfig": config} if config else {}),
        }
        sagemaker = self.endpoints.sagemaker
        sagemaker.create_model(ModelName=self.name, ExecutionRoleArn=self.endpoints.role, PrimaryContainer=container)
        self.endpoints.config(self.name, **{self.name: 1.0})
        sagemaker.create_endpoint(EndpointName=self.name, EndpointConfigName=self.name)
        endpoint = self.endpoints.wait(self.name)
        assert endpoint["EndpointStatus"] == "InService", endpoint.get("FailureReason")

    def ask(self, model, body, **options):
        return self.endpoints.invoke(self.name, body, TargetModel=model, **{"ContentType": "text/csv", **options})["Body"].read().decode()

    def refusal(self, body="1", **options):
        with pytest.raises(self.endpoints.runtime.exceptions.ClientError) as caught:
            self.endpoints.invoke(self.name, body, ContentType="text/csv", **options)
        error = caught.value.response
        return error["Error"]["Code"], error["Error"]["Message"], error["ResponseMetadata"]["HTTPStatusCode"]

    def loaded(self):
        return json.loads(self.server.command("endpoints", "models", self.name, "--output", "json"))


@pytest.fixture
def multi_model(endpoints, server, request):
    """Makes a multi-model endpoint's worth of names; the endpoints go when the test ends."""
    made = []

    def make(name):
        made.append(MultiModel(endpoints, server, name))
        return made[-1]

    yield make
    for one in made:
        endpoints.delete(one.name)


def test_boosted_trees_are_loaded_when_they_are_asked_for(multi_model, endpoints, boto):
    many = multi_model("multi-model-trees")
    case = CASES["logistic.ubj"]
    for number in range(30):
        many.put(f"{number}.tar.gz", {"xgboost-model": (MODELS / "logistic.ubj").read_bytes()})
    many.deploy(XGBOOST, MODELYARD_ENGINE="native")
    assert many.loaded()["Models"] == []
    body, expected = csv(case["rows"]), pytest.approx(case["predictions"], rel=1e-6)
    for number in range(30):
        assert [float(score) for score in many.ask(f"{number}.tar.gz", body).split(",")] == expected
    # The SDK lists models with a slash where the prefix has none.
    assert [float(score) for score in many.ask("/0.tar.gz", body).split(",")] == expected
    shown = many.loaded()
    assert {model["Engine"] for model in shown["Models"]} == {"native"} and len(shown["Models"]) >= 30
    [variant] = shown["Variants"]
    assert variant["LoadedModels"] == len(shown["Models"]) and variant["LoadedBytes"] > 0
    many.ask("7.tar.gz", body)
    assert many.loaded()["Variants"][0]["Hits"] == variant["Hits"] + 1
    table = many.server.command("endpoints", "models", many.name)
    assert "COLD LOAD P50 / P99" in table and "7.tar.gz" in table

    code, message, status = many.refusal(TargetModel="none.tar.gz")
    assert (code, status) == ("ValidationError", 400)
    assert f"Failed to download model data(bucket: {endpoints.bucket}, key: {many.prefix}none.tar.gz)" in message
    for wrong in ("../multi-model-other/a.tar.gz", "a/../../b", "%2e%2e/a", "a//b"):
        code, message, _ = many.refusal(TargetModel=wrong)
        assert code == "ValidationError" and "TargetModel" in message, message
    code, message, _ = many.refusal()
    assert code == "ValidationError" and "TargetModel" in message

    names = ("ModelCacheHit", "ModelLoadingWaitTime", "ModelDownloadingTime", "ModelLoadingTime", "LoadedModelCount")
    watch = boto("cloudwatch")

    def published():
        listed = watch.list_metrics(
            Namespace="AWS/SageMaker", Dimensions=[{"Name": "EndpointName", "Value": many.name}]
        )["Metrics"]
        return {metric["MetricName"] for metric in listed} >= set(names)

    poll(published, "the metrics of the models are there")


def test_scripts_are_loaded_by_workers_and_kept_apart(multi_model, endpoints):
    many = multi_model("multi-model-scripts")
    many.script("one.tar.gz", "one")
    many.script("folder/two.tar.gz", "two")
    many.deploy(BASE_IMAGE)
    assert many.ask("one.tar.gz", "x") == "one x"
    assert many.ask("folder/two.tar.gz", "x") == "two x"
    assert {(model["Model"], model["Engine"]) for model in many.loaded()["Models"]} == {
        ("one.tar.gz", "python"),
        ("folder/two.tar.gz", "python"),
    }
    with pytest.raises(endpoints.runtime.exceptions.ModelError) as caught:
        many.ask("one.tar.gz", "fail")
    assert "not one" in caught.value.response["OriginalMessage"]
    # One that cannot be loaded says why; the others stay.
    many.script("broken.tar.gz", script="raise ValueError('the weights are missing')")
    with pytest.raises(endpoints.runtime.exceptions.ModelError) as caught:
        many.ask("broken.tar.gz", "x")
    assert "the weights are missing" in caught.value.response["OriginalMessage"]
    # So does one that asks for packages that are not there.
    asked = {"code/inference.py": SCRIPT, "name": "needy", "code/requirements.txt": "setuptools\nnot-installed==1.0\n"}
    many.put("needy.tar.gz", asked)
    with pytest.raises(endpoints.runtime.exceptions.ModelError) as caught:
        many.ask("needy.tar.gz", "x")
    assert "requirements.txt asks for not-installed==1.0, " in caught.value.response["OriginalMessage"]
    many.put("modest.tar.gz", {**asked, "code/requirements.txt": "setuptools\n"})
    assert many.ask("modest.tar.gz", "x") == "needy x"
    assert many.ask("one.tar.gz", "y") == "one y"
    # A replaced archive is loaded anew.
    many.script("one.tar.gz", "another")
    poll(lambda: many.ask("one.tar.gz", "z") == "another z", "the new archive answers")
    # Native models beside those of the workers.
    many.put("trees.tar.gz", {"model.txt": (MODELS / "categories.txt").read_bytes()})
    case = CASES["categories.txt"]
    scores = [float(score) for score in many.ask("trees.tar.gz", csv(case["rows"])).split(",")]
    assert scores == pytest.approx(case["predictions"], rel=1e-12)
    rows = [[0.0 if cell is None else cell for cell in row] for row in case["rows"]]
    tensor = {"name": "x", "shape": [len(rows), len(rows[0])], "datatype": "FP64", "data": rows}
    # The open protocols know the endpoint's models by the same names.
    asked = urllib.request.Request(
        f"{many.server.endpoint.rstrip('/')}/_modelyard/open/endpoints/{many.name}/v2/models/trees.tar.gz/infer",
        json.dumps({"inputs": [tensor]}).encode(),
        {"Authorization": "Bearer " + many.server.command("endpoints", "key").strip()},
    )
    with urllib.request.urlopen(asked, timeout=60) as answer:
        answered = json.load(answer)
    assert answered["model_name"] == "trees.tar.gz"
    assert answered["outputs"][0]["shape"][0] == len(case["rows"])


def test_models_that_are_not_cached_go_after_each_request(multi_model):
    many = multi_model("multi-model-uncached")
    many.put("a.tar.gz", {"xgboost-model": (MODELS / "logistic.ubj").read_bytes()})
    many.deploy(XGBOOST, {"ModelCacheSetting": "Disabled"}, MODELYARD_ENGINE="native")
    case = CASES["logistic.ubj"]
    for _ in range(2):
        many.ask("a.tar.gz", csv(case["rows"]))
    shown = many.loaded()
    assert (shown["Models"], shown["Variants"][0]["Misses"]) == ([], 2)


def test_what_does_not_fit_is_refused(endpoints, deploy_script):
    sagemaker = endpoints.sagemaker

    def refused(**request):
        with pytest.raises(sagemaker.exceptions.ClientError) as caught:
            sagemaker.create_model(ModelName="multi-model-refused", ExecutionRoleArn=endpoints.role, **request)
        return caught.value.response["Error"]["Message"]

    assert "ModelDataUrl" in refused(PrimaryContainer={"Image": XGBOOST, "Mode": "MultiModel"})
    single = {"Image": XGBOOST, "MultiModelConfig": {"ModelCacheSetting": "Disabled"}}
    assert "MultiModelConfig" in refused(PrimaryContainer=single)
    deploy_script("multi-model-single", SCRIPT.replace('os.path.join(model_dir, "name")', '"/dev/null"'))
    with pytest.raises(endpoints.runtime.exceptions.ClientError, match="is not a multi-model endpoint"):
        endpoints.invoke("multi-model-single", "x", TargetModel="a.tar.gz")
    with pytest.raises(endpoints.runtime.exceptions.ClientError, match="not configured for direct invocation"):
        endpoints.invoke("multi-model-single", "x", TargetContainerHostname="first")


SDK = """
import sys
import sagemaker
from sagemaker.multidatamodel import MultiDataModel
from sagemaker.predictor import Predictor

image, archive, role, bucket = sys.argv[1:]
session = sagemaker.Session(default_bucket=bucket)
many = MultiDataModel(
    name="multi-model-sdk", model_data_prefix=f"s3://{bucket}/multi-model/sdk", image_uri=image, role=role, sagemaker_session=session,
    predictor_cls=Predictor,
)
many.add_model(archive, "first.tar.gz")
predictor = many.deploy(1, "ml.m5.large", endpoint_name="multi-model-sdk")
many.add_model(f"s3://{bucket}/multi-model/sdk/first.tar.gz", "second.tar.gz")
for name in sorted(many.list_models()):
    print(name, predictor.predict(b"hello", initial_args={"ContentType": "text/csv"}, target_model=name))
predictor.delete_endpoint()
"""


def test_the_sdk_adds_lists_deploys_and_predicts(endpoints, run_python, tmp_path):
    (tmp_path / "script.py").write_text(SDK)
    (tmp_path / "model.tar.gz").write_bytes(archive({"code/inference.py": SCRIPT, "name": "sdk"}))
    printed = run_python("script.py", BASE_IMAGE, str(tmp_path / "model.tar.gz"), endpoints.role, endpoints.bucket)
    assert "/first.tar.gz b'sdk hello'" in printed and "/second.tar.gz b'sdk hello'" in printed


def test_a_restarted_server_loads_models_anew(own_server):
    bucket = "multi-model-restart"
    own_server.client("s3").create_bucket(Bucket=bucket)
    role = own_server.client("iam").get_role(RoleName="ModelyardExecutionRole")["Role"]["Arn"]
    many = MultiModel(Endpoints(own_server, bucket, role), own_server, "multi-model-restart")
    many.script("one.tar.gz", "one")
    many.deploy(BASE_IMAGE)
    assert many.ask("one.tar.gz", "x") == "one x"
    [replica] = Path(own_server.data_dir, "replicas").iterdir()
    own_server.kill()
    own_server.start()
    assert many.ask("one.tar.gz", "y") == "one y"
    # The process was taken up, and the folder of the earlier server's model is gone.
    assert [folder.name for folder in Path(own_server.data_dir, "replicas").iterdir()] == [replica.name]
    assert len(list((replica / "opt-ml/models").iterdir())) == 1
    many.endpoints.delete(many.name)
