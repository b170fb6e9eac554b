"""Endpoints for inference components, and what asks them."""

import datetime
import json
import threading

import pytest
from botocore.exceptions import ClientError
from conftest import Endpoints, UnderLoad, poll, stop_all
from open_tools import OpenServer

SCRIPT = """
import os, pathlib, urllib.request, uuid
COPY = uuid.uuid4().hex
def model_fn(model_dir): return pathlib.Path(model_dir, "name").read_text().strip()
def predict_fn(data, model):
    data = str(data)
    if data.startswith("http"): urllib.request.urlopen(data).read()
    if data.startswith("take"): return {"taken": len(bytearray(os.urandom(1 << 20) * int(data.split()[1])))}
    return {"model": model, "copy": COPY}
"""

DIMENSION = "sagemaker:inference-component:DesiredCopyCount"
NO_CAPACITY = "Inference Component has no capacity to process this request"


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A server with the open protocols, whose policies take copies away after two seconds of a low metric."""
    data = tmp_path_factory.mktemp("components") / "data"
    data.mkdir()
    (data / "modelyard.toml").write_text("scale_in_after_seconds = 2\n")
    server = OpenServer(data).start()
    server.client("s3").create_bucket(Bucket="sagemaker-us-east-1-" + server.connection["account"])
    yield server
    stop_all(server)


class Scene:
    """An endpoint whose variant is for components."""

    def __init__(self, server, name, **variant):
        self.server, self.name = server, name
        bucket = "sagemaker-us-east-1-" + server.connection["account"]
        self.role = server.client("iam").get_role(RoleName="ModelyardExecutionRole")["Role"]["Arn"]
        self.endpoints = Endpoints(server, bucket, self.role)
        self.sagemaker, self.runtime = self.endpoints.sagemaker, self.endpoints.runtime
        variant = {"VariantName": "AllTraffic", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1, **variant}
        self.sagemaker.create_endpoint_config(EndpointConfigName=name, ExecutionRoleArn=self.role, ProductionVariants=[variant])
        self.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
        assert self.endpoints.wait(name)["EndpointStatus"] == "InService"

    def model(self, name, says=None, script=SCRIPT):
        """A model whose name is also what it answers, unless something else is said."""
        self.endpoints.model(name, script, extra_files={"name": says or name})

    def specification(self, model, cores=0.25, memory=512, **more):
        return {
            "ModelName": model,
            "ComputeResourceRequirements": {"NumberOfCpuCoresRequired": cores, "MinMemoryRequiredInMb": memory, **more},
        }

    def create(self, name, copies=1, status="InService", script=SCRIPT, **specification):
        self.model(name, script=script)
        self.sagemaker.create_inference_component(
            InferenceComponentName=name,
            EndpointName=self.name,
            VariantName="AllTraffic",
            Specification=self.specification(name, **specification),
            RuntimeConfig={"CopyCount": copies},
        )
        found = self.settled(name)
        assert found["InferenceComponentStatus"] == status, found.get("FailureReason")
        return found

    def describe(self, name):
        return self.sagemaker.describe_inference_component(InferenceComponentName=name)

    def settled(self, name):
        def there():
            found = self.describe(name)
            return found if found["InferenceComponentStatus"] in ("InService", "Failed") else None

        return poll(there, f"{name} has settled")

    def copies(self, name, count):
        wanted = {"DesiredCopyCount": count, "CurrentCopyCount": count}

        def there():
            found = self.describe(name)
            return found["RuntimeConfig"] == wanted and found["InferenceComponentStatus"] == "InService"

        poll(there, f"{name} has {count} copies", 60)

    def scale(self, name, count):
        config = {"CopyCount": count}
        self.sagemaker.update_inference_component_runtime_config(InferenceComponentName=name, DesiredRuntimeConfig=config)

    def ask(self, component=None, body=b"1", runtime=None):
        named = {"InferenceComponentName": component} if component else {}
        runtime = runtime or self.runtime
        answer = runtime.invoke_endpoint(EndpointName=self.name, Body=body, ContentType="application/json", **named)
        assert answer["InvokedProductionVariant"] == "AllTraffic"
        return json.load(answer["Body"])

    def refused(self, component=None):
        with pytest.raises(ClientError) as refused:
            self.ask(component)
        error = refused.value.response["Error"]
        assert error["Code"] == "ValidationError", error
        return error["Message"]

    def components(self):
        found = self.sagemaker.list_inference_components(EndpointNameEquals=self.name, MaxResults=100)
        return [one["InferenceComponentName"] for one in found["InferenceComponents"]]

    def delete(self):
        for name in self.components():
            self.sagemaker.delete_inference_component(InferenceComponentName=name)
        poll(lambda: not self.components(), f"the components of {self.name} are gone")
        self.sagemaker.delete_endpoint(EndpointName=self.name)


@pytest.fixture
def scene(shared):
    scenes = []

    def make(name, **variant):
        scenes.append(Scene(shared, name, **variant))
        return scenes[-1]

    yield make
    for made in scenes:
        made.delete()


def metric(server, name, component, statistic="Sum"):
    now = datetime.datetime.now(datetime.UTC)
    found = server.client("cloudwatch").get_metric_statistics(
        Namespace="AWS/SageMaker",
        MetricName=name,
        Dimensions=[{"Name": "InferenceComponentName", "Value": component}],
        StartTime=now - datetime.timedelta(minutes=30),
        EndTime=now + datetime.timedelta(minutes=30),
        Period=3600,
        Statistics=[statistic],
    )
    return sum(point[statistic] for point in found["Datapoints"])


class Callers(UnderLoad):
    """Clients that ask a component one request after another until they are told to end."""

    def __init__(self, scene, component, count=4):
        self.answers, self.errors, self.over = [], [], threading.Event()
        runtimes = [scene.server.client("sagemaker-runtime") for _ in range(count)]
        self.threads = [threading.Thread(target=self.call, args=(scene, component, runtime)) for runtime in runtimes]

    def call(self, scene, component, runtime):
        while not self.over.is_set():
            try:
                self.answers.append(scene.ask(component, runtime=runtime)["model"])
            except Exception as error:
                self.errors.append(error)


class Scaling:
    """What scales a component."""

    def __init__(self, scene, component):
        self.client = scene.server.client("application-autoscaling")
        self.target = {
            "ServiceNamespace": "sagemaker",
            "ResourceId": f"inference-component/{component}",
            "ScalableDimension": DIMENSION,
        }

    def register(self, least, most):
        self.client.register_scalable_target(**self.target, MinCapacity=least, MaxCapacity=most)

    def track(self, metric, value):
        self.client.put_scaling_policy(
            **self.target,
            PolicyName="track",
            PolicyType="TargetTrackingScaling",
            TargetTrackingScalingPolicyConfiguration={
                "TargetValue": value,
                "PredefinedMetricSpecification": {"PredefinedMetricType": metric},
                "ScaleInCooldown": 0,
                "ScaleOutCooldown": 0,
            },
        )

    def step(self, name, **configuration):
        """The ARN of a step policy, for alarms."""
        stored = self.client.put_scaling_policy(
            **self.target, PolicyName=name, PolicyType="StepScaling", StepScalingPolicyConfiguration={**configuration, "Cooldown": 1}
        )
        return stored["PolicyARN"]

    def causes(self):
        """Once no change is under way any more."""

        def ended():
            found = self.client.describe_scaling_activities(ServiceNamespace="sagemaker", ResourceId=self.target["ResourceId"])
            found = found["ScalingActivities"]
            return found if all(one["StatusCode"] != "InProgress" for one in found) else None

        self.ended = poll(ended, "all activities have ended")
        return [one["Cause"] for one in self.ended]
