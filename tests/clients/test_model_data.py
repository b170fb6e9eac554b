"""Model data that is no archive: one object, or the objects below a prefix."""

import json
from pathlib import Path

import pytest
from conftest import PYTORCH_INFERENCE, Endpoints, Server, poll, stop_all
from test_native import CASES, MODELS, XGBOOST, csv

# Tells what is in the model's folder, and whether it may be changed.
WEIGHT = """
import os
def model_fn(model_dir):
    try:
        open(os.path.join(model_dir, "deep/weight.txt"), "a").write("0")
        changed = True
    except OSError:
        changed = False
    return {"weight": float(open(os.path.join(model_dir, "deep/weight.txt")).read()), "changed": changed,
            "files": sorted(os.listdir(model_dir))}
def predict_fn(data, model): return model
"""


class Uncompressed:
    """Models of objects as they are."""

    def __init__(self, endpoints):
        self.endpoints, self.deployed = endpoints, []

    def put(self, prefix, files):
        for name, content in files.items():
            self.endpoints.s3.put_object(Bucket=self.endpoints.bucket, Key=f"{prefix}{name}", Body=content)
        return f"s3://{self.endpoints.bucket}/{prefix}"

    def container(self, uri, kind="S3Prefix", image=PYTORCH_INFERENCE, compression="None"):
        source = {"S3Uri": uri, "S3DataType": kind, "CompressionType": compression}
        return {"Image": image, "ModelDataSource": {"S3DataSource": source}}

    def model(self, name, container):
        return self.endpoints.sagemaker.create_model(
            ModelName=name, ExecutionRoleArn=self.endpoints.role, PrimaryContainer=container
        )

    def deploy(self, name):
        self.endpoints.config(name, **{name: 1.0})
        self.endpoints.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
        self.deployed.append(name)
        return self.endpoints.wait(name)

    def package(self, uri):
        self.endpoints.sagemaker.create_model_package_group(ModelPackageGroupName="uncompressed")
        return self.endpoints.sagemaker.create_model_package(
            ModelPackageGroupName="uncompressed",
            ModelApprovalStatus="Approved",
            InferenceSpecification={
                "Containers": [self.container(uri)],
                "SupportedContentTypes": ["application/json"],
                "SupportedResponseMIMETypes": ["application/json"],
            },
        )["ModelPackageArn"]

    def serve(self, name, container):
        self.model(name, container)
        endpoint = self.deploy(name)
        assert endpoint["EndpointStatus"] == "InService", endpoint.get("FailureReason")


@pytest.fixture
def uncompressed(endpoints):
    made = Uncompressed(endpoints)
    yield made
    for name in made.deployed:
        endpoints.delete(name)


def seen(endpoints, name):
    return json.load(endpoints.invoke(name, b"{}")["Body"])


def test_objects_below_a_prefix_are_the_models_files(uncompressed, endpoints):
    files = {"code/inference.py": WEIGHT, "deep/weight.txt": "2.5", "folder/": ""}
    uri = uncompressed.put("uncompressed/files/", files)
    uncompressed.serve("uncompressed-files", uncompressed.container(uri))
    expected = {"weight": 2.5, "changed": False, "files": ["code", "deep"]}
    assert seen(endpoints, "uncompressed-files") == expected
    described = endpoints.sagemaker.describe_model(ModelName="uncompressed-files")
    assert described["PrimaryContainer"]["ModelDataSource"]["S3DataSource"]["CompressionType"] == "None"

    endpoints.s3.put_object(Bucket=endpoints.bucket, Key="uncompressed/files/deep/weight.txt", Body=b"9")
    assert seen(endpoints, "uncompressed-files") == expected, "what is deployed stays as it is"
    endpoints.sagemaker.create_endpoint_config(
        EndpointConfigName="uncompressed-serverless",
        ProductionVariants=[
            {
                "VariantName": "AllTraffic",
                "ModelName": "uncompressed-files",
                "ServerlessConfig": {"MemorySizeInMB": 1024, "MaxConcurrency": 1},
            }
        ],
    )
    endpoints.sagemaker.create_endpoint(EndpointName="uncompressed-serverless", EndpointConfigName="uncompressed-serverless")
    uncompressed.deployed.append("uncompressed-serverless")
    assert endpoints.wait("uncompressed-serverless")["EndpointStatus"] == "InService"
    assert seen(endpoints, "uncompressed-serverless") == {**expected, "weight": 9.0}


def test_one_object_is_a_file_under_the_last_part_of_its_key(uncompressed, endpoints, server):
    case = CASES["logistic.ubj"]
    uri = uncompressed.put("uncompressed/one/", {"xgboost-model": (MODELS / "logistic.ubj").read_bytes(), "xgboost-model-2": b"x"})
    uncompressed.serve("uncompressed-one", uncompressed.container(f"{uri}xgboost-model", "S3Object", XGBOOST))
    assert "xgboost-model is an XGBoost model" in server.command("endpoints", "show", "uncompressed-one")
    answer = endpoints.invoke("uncompressed-one", csv(case["rows"]), ContentType="text/csv", Accept="text/csv")
    assert [float(score) for score in answer["Body"].read().split(b",")] == pytest.approx(case["predictions"], rel=1e-6)


def test_a_registered_prefix_is_deployed_as_it_was_registered(uncompressed):
    endpoints = uncompressed.endpoints
    uri = uncompressed.put("uncompressed/registered/", {"code/inference.py": WEIGHT, "deep/weight.txt": "1.5"})
    package = uncompressed.package(uri)
    uncompressed.serve("uncompressed-registered", {"ModelPackageName": package})
    assert seen(endpoints, "uncompressed-registered")["weight"] == 1.5

    uncompressed.model("uncompressed-changed", {"ModelPackageName": package})
    uncompressed.put("uncompressed/registered/", {"deep/weight.txt": "6.5"})
    endpoint = uncompressed.deploy("uncompressed-changed")
    assert endpoint["EndpointStatus"] == "Failed"
    assert "deep/weight.txt has changed since its model package was registered" in endpoint["FailureReason"]


@pytest.fixture
def discreet(tmp_path):
    """On a server whose files are for its own user."""
    server = Server(tmp_path / "data")
    server.umask = 0o077
    server.start()
    role = server.client("iam").get_role(RoleName="ModelyardExecutionRole")["Role"]["Arn"]
    server.client("s3").create_bucket(Bucket="discreet")
    yield Uncompressed(Endpoints(server, "discreet", role))
    stop_all(server)


def test_models_are_read_whatever_the_servers_umask(discreet):
    endpoints = discreet.endpoints
    files = {"code/inference.py": WEIGHT, "deep/weight.txt": "1.5"}
    endpoints.model("archived", WEIGHT, {"deep/weight.txt": "0.5"})
    discreet.deploy("archived")
    discreet.serve("listed", discreet.container(discreet.put("listed/", files)))
    discreet.serve("registered", {"ModelPackageName": discreet.package(discreet.put("registered/", files))})
    assert [seen(endpoints, name)["weight"] for name in ("archived", "listed", "registered")] == [0.5, 1.5, 1.5]


def test_what_is_no_model_is_refused(uncompressed, endpoints, server):
    def refused(text, *container, **options):
        with pytest.raises(endpoints.sagemaker.exceptions.ClientError, match=text) as caught:
            uncompressed.model("uncompressed-refused", uncompressed.container(*container, **options))
        assert caught.value.response["Error"]["Code"] == "ValidationException"

    refused("not an S3 prefix that ends with a slash", "s3://bucket/files")
    refused("S3Prefix needs CompressionType None", "s3://bucket/files/", compression="Gzip")
    refused("not the S3 URI of an object", "s3://bucket/files/", kind="S3Object")

    uncompressed.model("uncompressed-empty", uncompressed.container(f"s3://{endpoints.bucket}/uncompressed/nothing/"))
    endpoint = uncompressed.deploy("uncompressed-empty")
    assert endpoint["EndpointStatus"] == "Failed" and "No S3 objects found" in endpoint["FailureReason"]
    poll(lambda: not list(Path(server.data_dir, "replicas").glob("*uncompressed-empty*")), "what was furnished in part is gone")
    uri = uncompressed.put("uncompressed/odd/", {"a": b"1", "a/b": b"2"})
    uncompressed.model("uncompressed-odd", uncompressed.container(uri))
    endpoint = uncompressed.deploy("uncompressed-odd")
    assert endpoint["EndpointStatus"] == "Failed" and "another object needs the same path" in endpoint["FailureReason"]
