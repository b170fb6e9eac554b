"""Models of several containers: each in its turn, or the one that a request names."""

import json

import pytest
from conftest import BASE_IMAGE, PYTORCH_INFERENCE, archive

SCRIPT = """
    def model_fn(model_dir):
        return None

    def transform_fn(model, body, content_type, accept):
        text = body if isinstance(body, str) else bytes(body).decode()
        if text == "fail in NAME":
            raise ValueError("no luck in NAME")
        return "%s(%s %s %s)" % ("NAME", text, content_type, accept), "text/NAME"
"""


class Several:
    def __init__(self, endpoints, name):
        self.endpoints, self.name = endpoints, name

    def container(self, name, image=BASE_IMAGE, script=SCRIPT, **members):
        key = f"pipeline-models/{self.name}/{name}.tar.gz"
        files = {"code/inference.py": script.replace("NAME", name)}
        self.endpoints.s3.put_object(Bucket=self.endpoints.bucket, Key=key, Body=archive(files))
        return {"Image": image, "ModelDataUrl": f"s3://{self.endpoints.bucket}/{key}", **members}

    def model(self, containers, **members):
        self.endpoints.sagemaker.create_model(
            ModelName=self.name, ExecutionRoleArn=self.endpoints.role, Containers=containers, **members
        )

    def deploy(self, containers, **members):
        self.model(containers, **members)
        self.endpoints.config(self.name, **{self.name: 1.0})
        self.endpoints.sagemaker.create_endpoint(EndpointName=self.name, EndpointConfigName=self.name)
        return self.endpoints.wait(self.name)


@pytest.fixture
def several(endpoints):
    """Makes models of several containers; their endpoints go when the test ends."""
    made = []

    def make(name):
        made.append(name)
        return Several(endpoints, name)

    yield make
    for name in made:
        try:
            endpoints.delete(name)
        except endpoints.sagemaker.exceptions.ClientError:
            pass  # the test made none


def test_containers_answer_one_after_the_other(several, endpoints, server):
    pipeline = several("pipeline-models-serial")
    containers = [
        pipeline.container("first"),
        pipeline.container("second", PYTORCH_INFERENCE, ContainerHostname="middle"),
        pipeline.container("third"),
    ]
    endpoint = pipeline.deploy(containers)
    assert endpoint["EndpointStatus"] == "InService", endpoint.get("FailureReason")
    images = [image["SpecifiedImage"] for image in endpoint["ProductionVariants"][0]["DeployedImages"]]
    assert images == [BASE_IMAGE, PYTORCH_INFERENCE, BASE_IMAGE]
    described = endpoints.sagemaker.describe_model(ModelName=pipeline.name)
    assert [container["Image"] for container in described["Containers"]] == images
    answer = endpoints.invoke(pipeline.name, "x", ContentType="text/csv", Accept="text/mine")
    # The content type goes along; the caller's accept is for the last.
    expected = "third(second(first(x text/csv application/json) text/first application/json) text/second text/mine)"
    assert answer["Body"].read().decode() == expected
    assert answer["ContentType"] == "text/third"
    with pytest.raises(endpoints.runtime.exceptions.ModelError) as caught:
        endpoints.invoke(pipeline.name, "fail in first", ContentType="text/csv")
    response = caught.value.response
    assert "from container-1 " in response["Error"]["Message"] and "no luck in first" in response["OriginalMessage"]
    with pytest.raises(endpoints.runtime.exceptions.ClientError, match="not configured for direct invocation"):
        endpoints.invoke(pipeline.name, "x", TargetContainerHostname="middle")
    streams = server.client("logs").describe_log_streams(logGroupName="/aws/sagemaker/Endpoints/" + pipeline.name)
    ends = {stream["logStreamName"].split("/")[-1] for stream in streams["logStreams"]}
    assert {"container-1", "middle", "container-3"} <= ends


def test_a_request_names_the_container_that_answers(several, endpoints):
    direct = several("pipeline-models-direct")
    containers = [direct.container(name, ContainerHostname=name) for name in ("first", "second")]
    endpoint = direct.deploy(containers, InferenceExecutionConfig={"Mode": "Direct"})
    assert endpoint["EndpointStatus"] == "InService", endpoint.get("FailureReason")
    for name in ("first", "second"):
        answer = endpoints.invoke(direct.name, "x", ContentType="text/csv", Accept="a/b", TargetContainerHostname=name)
        assert answer["Body"].read().decode() == f"{name}(x text/csv a/b)"
    for options, says in [({}, "TargetContainerHostname"), ({"TargetContainerHostname": "third"}, "third was not found")]:
        with pytest.raises(endpoints.runtime.exceptions.ClientError, match=says) as caught:
            endpoints.invoke(direct.name, "x", **options)
        assert caught.value.response["Error"]["Code"] == "ValidationError"


def test_a_container_that_does_not_start_fails_the_endpoint_by_name(several):
    broken = several("pipeline-models-broken")
    endpoint = broken.deploy([broken.container("good"), broken.container("bad", script="raise ValueError('no weights')")])
    assert endpoint["EndpointStatus"] == "Failed"
    assert "Container container-2: The model could not be loaded." in endpoint["FailureReason"]
    assert "inference.py" in endpoint["FailureReason"]


def test_batch_transform_sends_records_through_all_containers(several, endpoints):
    batch = several("pipeline-models-batch")
    script = """
        def model_fn(model_dir):
            return None

        def transform_fn(model, body, content_type, accept):
            text = body if isinstance(body, str) else body.decode()
            return "".join(line + " NAME\\n" for line in text.splitlines()), "text/csv"
    """
    batch.model([batch.container("one", script=script), batch.container("two", script=script)])
    endpoints.s3.put_object(Bucket=endpoints.bucket, Key="pipeline-models/batch-in/rows.csv", Body=b"a\nb\n")
    endpoints.sagemaker.create_transform_job(
        TransformJobName=batch.name,
        ModelName=batch.name,
        TransformInput={
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{endpoints.bucket}/pipeline-models/batch-in/"}},
            "ContentType": "text/csv",
            "SplitType": "Line",
        },
        TransformOutput={"S3OutputPath": f"s3://{endpoints.bucket}/pipeline-models/batch-out"},
        TransformResources={"InstanceType": "ml.m5.large", "InstanceCount": 1},
    )
    endpoints.sagemaker.get_waiter("transform_job_completed_or_stopped").wait(
        TransformJobName=batch.name, WaiterConfig={"Delay": 1, "MaxAttempts": 240}
    )
    job = endpoints.sagemaker.describe_transform_job(TransformJobName=batch.name)
    assert job["TransformJobStatus"] == "Completed", job.get("FailureReason")
    written = endpoints.s3.get_object(Bucket=endpoints.bucket, Key="pipeline-models/batch-out/rows.csv.out")["Body"].read()
    assert written.split() == b"a one two b one two".split()


SDK = """
import sys
import sagemaker
from sagemaker.model import Model
from sagemaker.pipeline import PipelineModel
from sagemaker.predictor import Predictor

image, first, second, role, bucket = sys.argv[1:]
session = sagemaker.Session(default_bucket=bucket)
models = [Model(image_uri=image, model_data=data, role=role, sagemaker_session=session) for data in (first, second)]
pipeline = PipelineModel(models=models, role=role, name="pipeline-models-sdk", sagemaker_session=session, predictor_cls=Predictor)
predictor = pipeline.deploy(1, "ml.m5.large", endpoint_name="pipeline-models-sdk")
print(predictor.predict(b"x", initial_args={"ContentType": "text/csv", "Accept": "a/b"}))
predictor.delete_endpoint()
"""


def test_the_sdk_deploys_a_pipeline_model(several, endpoints, run_python, tmp_path):
    made = several("pipeline-models-sdk-data")
    archives = [made.container(name)["ModelDataUrl"] for name in ("one", "two")]
    (tmp_path / "script.py").write_text(SDK)
    printed = run_python("script.py", BASE_IMAGE, *archives, endpoints.role, endpoints.bucket)
    assert "two(one(x text/csv application/json) text/one a/b)" in printed
