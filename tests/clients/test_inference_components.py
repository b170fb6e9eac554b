"""Inference components: several models share the instances of an endpoint, with copies that follow requests, policies, updates and a restart."""

import concurrent.futures
import datetime
import json
import os
import subprocess
import sys
import textwrap
import threading

import pytest
from botocore.exceptions import ClientError
from conftest import PYTORCH_INFERENCE, Endpoints, UnderLoad, archive, poll, stop_all
from faults import Steadily, faulty, turnstile  # noqa: F401 (fixtures)
from open_tools import OpenServer, ask, call, host

# Says which model it is and which copy; answers when its gate lets it, and takes as much memory as it is told.
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

    def create(self, name, copies=1, status="InService", **specification):
        self.model(name)
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


def test_two_components_share_an_endpoint(scene):
    scene = scene("component-pair")
    one = scene.create("component-one")
    assert one["RuntimeConfig"] == {"DesiredCopyCount": 1, "CurrentCopyCount": 1}
    scene.create("component-two", cores=0.5)
    assert sorted(scene.components()) == ["component-one", "component-two"]
    assert scene.ask("component-one")["model"] == "component-one"
    assert scene.ask("component-two")["model"] == "component-two"
    stream = scene.runtime.invoke_endpoint_with_response_stream(
        EndpointName=scene.name, InferenceComponentName="component-two", Body=b"1", ContentType="application/json"
    )
    assert b"component-two" in b"".join(event["PayloadPart"]["Bytes"] for event in stream["Body"])

    assert scene.refused().startswith("Inference Component Name header is required for endpoints")
    assert "Inference Component component-none of endpoint component-pair" in scene.refused("component-none")
    with pytest.raises(ClientError, match="Cannot delete endpoint with inference component associated"):
        scene.sagemaker.delete_endpoint(EndpointName=scene.name)

    poll(lambda: metric(scene.server, "Invocations", "component-two") == 2, "invocations are counted")
    assert metric(scene.server, "InvocationsPerCopy", "component-one") == 1
    shown = scene.server.command("endpoints", "show", scene.name)
    assert "component-one" in shown and "1 of 1" in shown and "0.25 CPU cores, 512 MB" in shown and "python" in shown
    logs = scene.server.client("logs").describe_log_streams(logGroupName="/aws/sagemaker/InferenceComponents/component-one")
    assert len(logs["logStreams"]) == 1
    scene.server.command("logs", "component-one")


def test_copies_come_and_go_and_none_has_no_capacity(scene):
    scene = scene("component-copies")
    scene.create("component-counted")
    scene.scale("component-counted", 3)
    scene.copies("component-counted", 3)
    poll(lambda: len({scene.ask("component-counted")["copy"] for _ in range(20)}) == 3, "all copies answer")
    scene.scale("component-counted", 0)
    scene.copies("component-counted", 0)
    assert scene.refused("component-counted").startswith(NO_CAPACITY)
    poll(lambda: metric(scene.server, "NoCapacityInvocationFailures", "component-counted") >= 1, "it is counted")
    scene.sagemaker.update_inference_component(InferenceComponentName="component-counted", RuntimeConfig={"CopyCount": 1})
    scene.copies("component-counted", 1)
    assert scene.ask("component-counted")["model"] == "component-counted"


def test_what_has_no_room_says_what_is_free_and_comes_when_there_is_room(scene):
    scene = scene("component-room")
    scene.create("component-large", cores=1.5)
    refused = scene.create("component-extra", cores=1, status="Failed")["FailureReason"]
    assert refused.startswith("CapacityError: 0 of 1 copies have room on variant AllTraffic"), refused
    assert "0.5 CPU cores" in refused and "An empty instance holds 2 copies" in refused
    # More copies than there is room for: those that fit run, the others wait.
    scene.create("component-small", cores=0.5)
    scene.scale("component-small", 3)
    found = scene.describe("component-small")
    assert found["RuntimeConfig"] == {"DesiredCopyCount": 3, "CurrentCopyCount": 1}
    assert "1 of 3 copies have room" in found["FailureReason"]
    scene.sagemaker.delete_inference_component(InferenceComponentName="component-large")
    scene.copies("component-small", 3)
    assert "FailureReason" not in scene.describe("component-small")
    assert scene.ask("component-small")["model"] == "component-small"


def test_who_wakes_a_component_that_has_no_room_is_told(scene):
    scene = scene("component-crowded")
    scene.create("component-wide", cores=2)
    scene.create("component-sleeper", copies=0)
    Scaling(scene, "component-sleeper").register(0, 1)

    def told():
        assert scene.refused("component-sleeper").startswith(NO_CAPACITY)
        return "0 of 1 copies have room" in scene.describe("component-sleeper").get("FailureReason", "")

    poll(told, "the request that woke it was not held, and it says why")
    scene.scale("component-wide", 0)
    scene.copies("component-sleeper", 1)
    assert scene.ask("component-sleeper")["model"] == "component-sleeper"


def test_the_memory_of_a_copy_is_limited(scene):
    scene = scene("component-memory")
    scene.create("component-hungry", MaxMemoryRequiredInMb=1024)
    with pytest.raises(ClientError) as lost:
        scene.ask("component-hungry", json.dumps("take 1500").encode())
    assert lost.value.response["Error"]["Code"] == "ModelError"
    poll(lambda: scene.describe("component-hungry")["RuntimeConfig"]["CurrentCopyCount"] == 1, "the copy is replaced")
    assert scene.ask("component-hungry")["model"] == "component-hungry"


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


def test_an_update_under_load_drops_no_request_and_a_bad_one_is_rolled_back(scene):
    scene = scene("component-update")
    scene.create("component-updated", copies=2)
    scene.model("component-updated-new", says="new")
    scene.model("component-updated-bad", script="def model_fn(model_dir): raise ValueError('no weights here')")
    rolling = {"RollingUpdatePolicy": {"MaximumBatchSize": {"Type": "COPY_COUNT", "Value": 1}, "WaitIntervalInSeconds": 0}}
    with Callers(scene, "component-updated") as callers:
        poll(lambda: len(callers.answers) > 20, "the component is under load")
        scene.sagemaker.update_inference_component(
            InferenceComponentName="component-updated",
            Specification=scene.specification("component-updated-new"),
            DeploymentConfig=rolling,
        )
        assert scene.settled("component-updated")["InferenceComponentStatus"] == "InService"
        updated = len(callers.answers)
        poll(lambda: len(callers.answers) > updated + 30, "the new copies are under load")
        scene.sagemaker.update_inference_component(
            InferenceComponentName="component-updated", Specification=scene.specification("component-updated-bad")
        )
        found = scene.settled("component-updated")
        updated = len(callers.answers)
        poll(lambda: len(callers.answers) > updated + 30, "the copies that stayed are under load")
    assert callers.errors == []
    assert callers.answers[0] == "component-updated" and set(callers.answers[-20:]) == {"new"}
    assert "no weights here" in found["FailureReason"] and "rolled back" in found["FailureReason"]
    assert found["Specification"]["ModelName"] == "component-updated-new"
    assert found["LastDeploymentConfig"] == rolling
    scene.copies("component-updated", 2)


def test_a_component_that_fills_its_instances_is_updated(scene):
    scene = scene("component-full")
    scene.create("component-filling", cores=1, copies=2)
    scene.model("component-filling-new", says="new")

    def update(cores, **config):
        scene.sagemaker.update_inference_component(
            InferenceComponentName="component-filling", Specification=scene.specification("component-filling-new", cores=cores), **config
        )
        return scene.settled("component-filling")

    # The copies that come have to have room when all is done, not beside those that go.
    found = update(1.5)
    assert found["FailureReason"].startswith("The update has no room and was rolled back. CapacityError: 1 of 2 copies have room"), found
    assert scene.ask("component-filling")["model"] == "component-filling"
    batch = {"Type": "COPY_COUNT", "Value": 1}
    found = update(1, DeploymentConfig={"RollingUpdatePolicy": {"MaximumBatchSize": batch, "WaitIntervalInSeconds": 0}})
    assert found["InferenceComponentStatus"] == "InService" and "FailureReason" not in found, found
    scene.copies("component-filling", 2)
    assert {scene.ask("component-filling")["model"] for _ in range(20)} == {"new"}


def test_an_alarm_takes_a_rolling_update_back(scene):
    scene = scene("component-alarm")
    scene.create("component-watched", copies=2)
    scene.model("component-watched-new", says="new")
    cloudwatch = scene.server.client("cloudwatch")
    cloudwatch.put_metric_alarm(
        AlarmName="component-complaints",
        Namespace="Own",
        MetricName="Complaints",
        Statistic="Maximum",
        Period=1,
        EvaluationPeriods=1,
        Threshold=10,
        ComparisonOperator="GreaterThanThreshold",
        TreatMissingData="ignore",
    )
    scene.sagemaker.update_inference_component(
        InferenceComponentName="component-watched",
        Specification=scene.specification("component-watched-new"),
        DeploymentConfig={
            "RollingUpdatePolicy": {"MaximumBatchSize": {"Type": "CAPACITY_PERCENT", "Value": 50}, "WaitIntervalInSeconds": 600},
            "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "component-complaints"}]},
        },
    )
    # One of two copies is new, and is watched for ten minutes.
    poll(lambda: {scene.ask("component-watched")["model"] for _ in range(20)} == {"component-watched", "new"}, "both answer")
    assert scene.describe("component-watched")["InferenceComponentStatus"] == "Updating"
    with pytest.raises(ClientError, match="Cannot update in-progress inference component"):
        scene.scale("component-watched", 1)
    complaint = {"MetricName": "Complaints", "Value": 50, "StorageResolution": 1}
    cloudwatch.put_metric_data(Namespace="Own", MetricData=[complaint])
    found = scene.settled("component-watched")
    assert "The alarm component-complaints went into the state ALARM" in found["FailureReason"], found
    scene.copies("component-watched", 2)
    assert "ALARM" in scene.describe("component-watched")["FailureReason"], "it stays to be seen"
    assert {scene.ask("component-watched")["model"] for _ in range(20)} == {"component-watched"}
    cloudwatch.delete_alarms(AlarmNames=["component-complaints"])


@pytest.mark.parametrize("transport", ["http", "grpc"])
def test_the_client_of_triton_reaches_components(scene, transport):
    name = f"component-open-{transport}"
    scene = scene(name)
    one, two = f"{name}-one", f"{name}-two"
    address, key = host(scene.server.open_address), scene.server.command("endpoints", "key").strip()
    scene.create(one)
    assert ask("only_component", transport, address, key, name) == [one, one, "AllTraffic"]
    scene.create(two)
    seen = ask("components", transport, address, key, name, one, two)
    assert seen["by name"] == seen["below its endpoint"] == seen["by header"] == [two, two, "AllTraffic"]
    assert seen["by both"] == [one, one, "AllTraffic"]
    invalid, missing = ("400", "404") if transport == "http" else ("StatusCode.INVALID_ARGUMENT", "StatusCode.NOT_FOUND")
    assert seen["by two"][0] == seen["none"][0] == invalid and seen["missing"][0] == seen["version"][0] == missing
    assert f"several inference components: {one}, {two}" in seen["none"][1]
    assert seen["ready"] == [True, True]
    assert seen["model"]["name"] == two and seen["model"]["versions"] == ["AllTraffic"]
    poll(lambda: metric(scene.server, "Invocations", two) == 3, "invocations are counted for the component")


def test_other_open_protocols_reach_components(scene):
    name = "component-protocols"
    scene = scene(name)
    scene.create("component-spoken")
    scene.create("component-silent", copies=0)
    base, key = scene.server.open_address, scene.server.command("endpoints", "key").strip()
    below = f"{base}/endpoints/{name}"
    rows, header = {"instances": [[1]]}, {"X-Amzn-SageMaker-Inference-Component": "component-spoken"}
    for url, headers in [
        (f"{base}/v1/models/component-spoken:predict", {}),
        (f"{base}/v1/models/{name}:predict", header),
        (f"{below}/v1/models/component-spoken:predict", {}),
        (f"{below}/v1/models/{name}:predict", header),
    ]:
        status, answer = call(url, key, rows, **headers)
        assert (status, answer.get("model")) == (200, "component-spoken"), (url, answer)
    chat = {"model": "component-spoken", "messages": []}
    assert call(f"{base}/v1/chat/completions", key, chat)[1]["model"] == "component-spoken"
    assert call(f"{below}/v1/completions", key, {"prompt": "x"}, **header)[1]["model"] == "component-spoken"
    status, refused = call(f"{below}/v1/chat/completions", key, {"model": "any", "messages": []})
    assert status == 400 and "several inference components" in refused["error"]["message"]
    assert call(f"{base}/v1/models/component-spoken", key)[1]["ready"] == "True"
    assert call(f"{base}/v1/models/component-silent", key)[1]["ready"] == "False"
    status, refused = call(f"{base}/v1/models/component-silent:predict", key, rows)
    assert status == 503 and refused["error"].startswith(NO_CAPACITY)
    assert call(f"{below}/v1/models", key)[1]["models"] == ["component-silent", "component-spoken"]
    listed = call(f"{base}/v1/models", key)[1]["models"]
    assert "component-spoken" in listed and name not in listed
    # One that is scaled down to none is woken by such a request, too.
    Scaling(scene, "component-silent").register(0, 1)
    poll(lambda: call(f"{base}/v2/models/component-silent/ready", key)[0] == 200, "it can be woken")
    assert call(f"{base}/v1/models/component-silent:predict", key, rows)[1]["model"] == "component-silent"


def test_a_container_of_its_own_needs_no_model(scene):
    scene = scene("component-container")
    key = "endpoints/component-container/model.tar.gz"
    data = archive({"code/inference.py": SCRIPT, "name": "no model"})
    scene.endpoints.s3.put_object(Bucket=scene.endpoints.bucket, Key=key, Body=data)
    container = {
        "Image": PYTORCH_INFERENCE,
        "ArtifactUrl": f"s3://{scene.endpoints.bucket}/{key}",
        "Environment": {"SAGEMAKER_MODEL_SERVER_WORKERS": "1"},
    }
    scene.sagemaker.create_inference_component(
        InferenceComponentName="component-contained",
        EndpointName=scene.name,
        VariantName="AllTraffic",
        Specification={"Container": container, "ComputeResourceRequirements": {"MinMemoryRequiredInMb": 256}},
        RuntimeConfig={"CopyCount": 1},
    )
    found = scene.settled("component-contained")
    assert found["InferenceComponentStatus"] == "InService", found
    assert found["Specification"]["Container"]["DeployedImage"]["SpecifiedImage"] == PYTORCH_INFERENCE
    assert scene.ask("component-contained")["model"] == "no model"


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


def test_copies_and_instances_follow_the_load_down_to_zero_and_back(scene, gate):
    managed = {"Status": "ENABLED", "MinInstanceCount": 0, "MaxInstanceCount": 2}
    scene = scene("component-load", ManagedInstanceScaling=managed)
    scene.create("component-busy", cores=1)
    scaling = Scaling(scene, "component-busy")
    scaling.register(0, 3)
    scaling.track("SageMakerInferenceComponentConcurrentRequestsPerCopyHighResolution", 1.0)

    def instances():
        [variant] = scene.sagemaker.describe_endpoint(EndpointName=scene.name)["ProductionVariants"]
        return variant["CurrentInstanceCount"]

    url, opened = gate
    body = json.dumps(url).encode()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        runtimes = [scene.server.client("sagemaker-runtime") for _ in range(4)]
        held = [pool.submit(scene.ask, "component-busy", body, runtime) for runtime in runtimes]
        try:
            poll(lambda: scene.describe("component-busy")["RuntimeConfig"]["CurrentCopyCount"] == 3, "three copies came", 60)
            assert instances() == 2
        finally:
            opened.set()
        assert {answer.result()["model"] for answer in held} == {"component-busy"}
    scene.copies("component-busy", 0)
    poll(lambda: instances() == 0, "the instances went")
    # The request that finds no copy is held, and answered by the one that it wakes.
    assert scene.ask("component-busy")["model"] == "component-busy"
    causes = scaling.causes()
    assert any("above the target 1" in cause for cause in causes), causes
    assert any("a request arrived while the desired copy count was 0" in cause for cause in causes), causes
    assert "component-busy" in scene.server.command("endpoints", "scaling", scene.name)


def test_an_alarm_runs_step_policies_on_copies(scene):
    scene = scene("component-steps")
    scene.create("component-stepped")
    scaling = Scaling(scene, "component-stepped")
    scaling.register(1, 3)
    more = scaling.step("more", AdjustmentType="ChangeInCapacity", StepAdjustments=[{"MetricIntervalLowerBound": 0, "ScalingAdjustment": 1}])
    fewer = scaling.step("fewer", AdjustmentType="ExactCapacity", StepAdjustments=[{"MetricIntervalUpperBound": 0, "ScalingAdjustment": 1}])
    cloudwatch = scene.server.client("cloudwatch")
    cloudwatch.put_metric_alarm(
        AlarmName="component-busy-alarm",
        Namespace="AWS/SageMaker",
        MetricName="Invocations",
        Dimensions=[{"Name": "InferenceComponentName", "Value": "component-stepped"}],
        Statistic="Sum",
        Period=10,
        EvaluationPeriods=1,
        Threshold=3,
        ComparisonOperator="GreaterThanThreshold",
        TreatMissingData="notBreaching",
        AlarmActions=[more],
    )
    # One copy when the alarm goes off, and one more for each period that it stays so.
    with Callers(scene, "component-stepped", count=1) as callers:
        poll(lambda: scene.describe("component-stepped")["RuntimeConfig"]["CurrentCopyCount"] == 3, "the alarm brings copies")
    assert callers.errors == [] and set(callers.answers) == {"component-stepped"}
    cloudwatch.delete_alarms(AlarmNames=["component-busy-alarm"])
    causes = scaling.causes()
    assert len(causes) == 2 and all("component-busy-alarm" in cause and "policy more" in cause for cause in causes), causes
    cloudwatch.put_metric_alarm(
        AlarmName="component-quiet-alarm",
        Namespace="Own",
        MetricName="Backlog",
        Statistic="Maximum",
        Period=1,
        EvaluationPeriods=1,
        Threshold=1,
        ComparisonOperator="LessThanThreshold",
        TreatMissingData="ignore",
        AlarmActions=[fewer],
    )
    cloudwatch.put_metric_data(Namespace="Own", MetricData=[{"MetricName": "Backlog", "Value": 0, "StorageResolution": 1}])
    scene.copies("component-stepped", 1)
    assert "component-quiet-alarm" in scaling.causes()[0] and "policy fewer" in scaling.causes()[0]
    assert scaling.ended[0]["Details"] == "3 to 1 copies; the step asks for 1"
    cloudwatch.delete_alarms(AlarmNames=["component-quiet-alarm"])


def test_scheduled_actions_move_the_bounds_and_copies_follow(scene):
    scene = scene("component-clock")
    scene.create("component-scheduled")
    scaling = Scaling(scene, "component-scheduled")
    scaling.register(1, 1)

    def soon(name, least, most):
        at = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=2)
        scaling.client.put_scheduled_action(
            **scaling.target,
            ScheduledActionName=name,
            Schedule=at.strftime("at(%Y-%m-%dT%H:%M:%S)"),
            ScalableTargetAction={"MinCapacity": least, "MaxCapacity": most},
        )

    soon("morning", 2, 3)
    scene.copies("component-scheduled", 2)
    assert scaling.causes() == ["minimum capacity was set to 2", "scheduled action name morning was triggered"]
    soon("night", 0, 0)
    scene.copies("component-scheduled", 0)
    # With a bound of none no request brings one up.
    assert scene.refused("component-scheduled").startswith(NO_CAPACITY)
    soon("day", 1, 1)
    scene.copies("component-scheduled", 1)
    assert scene.ask("component-scheduled")["model"] == "component-scheduled"
    assert scaling.causes()[:2] == ["minimum capacity was set to 1", "scheduled action name day was triggered"]


def test_a_killed_server_serves_its_components_again(own_server):
    own_server.client("s3").create_bucket(Bucket="sagemaker-us-east-1-" + own_server.connection["account"])
    scene = Scene(own_server, "component-restart")
    scene.create("component-kept", copies=2)
    scene.create("component-empty", copies=0)
    before = poll(
        lambda: (lambda seen: seen if len(seen) == 2 else None)({scene.ask("component-kept")["copy"] for _ in range(20)}),
        "both copies answer",
    )
    own_server.kill()
    own_server.start()
    assert scene.describe("component-kept")["InferenceComponentStatus"] == "InService"
    assert scene.ask("component-kept")["copy"] in before
    scene.copies("component-kept", 2)
    assert scene.refused("component-empty").startswith(NO_CAPACITY)
    assert scene.refused().startswith("Inference Component Name header is required")
    # An update that the server does not survive goes on.
    scene.model("component-kept-new", says="new")
    scene.sagemaker.update_inference_component(
        InferenceComponentName="component-kept", Specification=scene.specification("component-kept-new")
    )
    own_server.kill()
    own_server.start()
    assert scene.ask("component-kept")["model"] in ("component-kept", "new")
    assert scene.settled("component-kept")["InferenceComponentStatus"] == "InService"
    assert scene.ask("component-kept")["model"] == "new"
    scene.delete()


def killable(faulty, name):
    """An endpoint for components of a server that dies, and what asks the component of the same name."""
    faulty.client("s3").create_bucket(Bucket="sagemaker-us-east-1-" + faulty.connection["account"])
    scene = Scene(faulty, name, InstanceType="ml.m5.xlarge")
    return scene, lambda runtime: scene.ask(name, runtime=runtime)["model"]


def only(scene, copies):
    """Waits until these copies of the scene's component are all that runs."""
    wanted = {"DesiredCopyCount": copies, "CurrentCopyCount": copies}

    def there():
        return scene.describe(scene.name)["RuntimeConfig"] == wanted and len(scene.server.supervisors()) == copies

    poll(there, f"{copies} copies run, and nothing else")


def in_service(scene):
    return lambda: scene.describe(scene.name)["InferenceComponentStatus"] == "InService"


ONE_COPY = {"Type": "COPY_COUNT", "Value": 1}


def test_a_rolling_update_goes_on_after_a_kill_in_each_step(faulty):
    name = "component-rolling-kill"
    scene, ask = killable(faulty, name)
    scene.create(name, copies=2)
    scene.model("component-rolling-new", says="new")
    faulty.arm("deployment-moved")
    with Steadily(faulty, ask) as load:
        scene.sagemaker.update_inference_component(
            InferenceComponentName=name,
            Specification=scene.specification("component-rolling-new"),
            DeploymentConfig={"RollingUpdatePolicy": {"MaximumBatchSize": ONE_COPY, "WaitIntervalInSeconds": 1}},
        )
        kills = load.through_each_step(in_service(scene))
        load.more()
        last = load.more()
    assert load.errors == [] and set(load.answers) == {name, "new"} and set(last) == {"new"}
    found = scene.describe(name)
    assert found["Specification"]["ModelName"] == "component-rolling-new" and "FailureReason" not in found
    assert kills == 3, "each step but the first was cut off once"
    only(scene, 2)


def test_a_rolling_update_goes_back_after_a_kill_in_each_step(faulty, turnstile):
    name = "component-rollback-kill"
    scene, ask = killable(faulty, name)
    scene.create(name, copies=3)
    # Two of three new copies start; while the third does, one of the three before is left.
    url, holds = turnstile(2)
    held = f"import urllib.request\nurllib.request.urlopen({url!r}).read()\n"
    scene.model("component-rollback-new", says="new", script=held + textwrap.dedent(SCRIPT))
    cloudwatch = faulty.client("cloudwatch")
    cloudwatch.put_metric_alarm(
        AlarmName="complaints", Namespace="Own", MetricName="Complaints", Statistic="Sum", Period=3600, EvaluationPeriods=1,
        Threshold=1, ComparisonOperator="GreaterThanThreshold", TreatMissingData="ignore",
    )
    with Steadily(faulty, ask) as load:
        scene.sagemaker.update_inference_component(
            InferenceComponentName=name,
            Specification=scene.specification("component-rollback-new"),
            DeploymentConfig={
                "RollingUpdatePolicy": {
                    "MaximumBatchSize": ONE_COPY, "RollbackMaximumBatchSize": ONE_COPY, "WaitIntervalInSeconds": 0,
                },
                "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "complaints"}]},
            },
        )
        poll(holds.is_set, "the third batch starts")
        load.kill()
        load.more()
        assert scene.describe(name)["InferenceComponentStatus"] == "Updating"
        faulty.arm("deployment-moved")
        cloudwatch.set_alarm_state(AlarmName="complaints", StateValue="ALARM", StateReason="test")
        kills = load.through_each_step(in_service(scene))
        load.more()
        last = load.more()
    assert load.errors == [] and set(load.answers) == {name, "new"} and set(last) == {name}
    found = scene.describe(name)
    assert found["Specification"]["ModelName"] == name and "went into the state ALARM" in found["FailureReason"]
    assert kills == 2, "each step back was cut off once"
    only(scene, 3)


SDK = """
import sys
import sagemaker
from sagemaker.compute_resource_requirements.resource_requirements import ResourceRequirements
from sagemaker.deserializers import JSONDeserializer
from sagemaker.enums import EndpointType
from sagemaker.model import Model
from sagemaker.predictor import Predictor
from sagemaker.serializers import JSONSerializer

image, data, role, name = sys.argv[1:]
session = sagemaker.Session()
model = Model(image, model_data=data, role=role, name=name, predictor_cls=Predictor, sagemaker_session=session)
predictor = model.deploy(
    1,
    "ml.m5.large",
    endpoint_name=name,
    endpoint_type=EndpointType.INFERENCE_COMPONENT_BASED,
    inference_component_name=name,
    resources=ResourceRequirements(requests={"num_cpus": 1, "memory": 512, "copies": 1}, limits={"memory": 2048}),
    managed_instance_scaling={"MinInstanceCount": 1, "MaxInstanceCount": 2},
    serializer=JSONSerializer(),
    deserializer=JSONDeserializer(),
)
assert session.is_inference_component_based_endpoint(name)
assert predictor.predict(1)["model"] == "sdk"
predictor.update_predictor(resources=ResourceRequirements(requests={"num_cpus": 0.5, "memory": 512, "copies": 2}))
copies = session.describe_inference_component(name)["RuntimeConfig"]
assert copies == {"DesiredCopyCount": 2, "CurrentCopyCount": 2}, copies
assert predictor.predict(1)["model"] == "sdk"
predictor.delete_predictor(wait=True)
assert session.list_and_paginate_inference_component_names_associated_with_endpoint(name) == []
predictor.delete_endpoint()
print("all is well")
"""


def test_the_sdk_deploys_a_component(shared, tmp_path):
    name = "component-sdk"
    bucket = "sagemaker-us-east-1-" + shared.connection["account"]
    role = shared.client("iam").get_role(RoleName="ModelyardExecutionRole")["Role"]["Arn"]
    key = f"endpoints/{name}/model.tar.gz"
    data = archive({"code/inference.py": SCRIPT, "name": "sdk"})
    shared.client("s3").put_object(Bucket=bucket, Key=key, Body=data)
    (tmp_path / "deploy.py").write_text(SDK)
    done = subprocess.run(
        [sys.executable, "deploy.py", PYTORCH_INFERENCE, f"s3://{bucket}/{key}", role, name],
        cwd=tmp_path,
        env=shared.environment(),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert "all is well" in done.stdout, done.stdout + done.stderr


SDK3 = """
import json, sys
from sagemaker.core.resources import Endpoint, InferenceComponent
from sagemaker.core.shapes import (
    InferenceComponentComputeResourceRequirements, InferenceComponentRuntimeConfig, InferenceComponentSpecification,
)

endpoint, model = sys.argv[1:]
component = InferenceComponent.create(
    inference_component_name="component-v3",
    endpoint_name=endpoint,
    variant_name="AllTraffic",
    specification=InferenceComponentSpecification(
        model_name=model,
        compute_resource_requirements=InferenceComponentComputeResourceRequirements(
            number_of_cpu_cores_required=0.5, min_memory_required_in_mb=512
        ),
    ),
    runtime_config=InferenceComponentRuntimeConfig(copy_count=1),
)
component.wait_for_status("InService", poll=1, timeout=120)
answer = Endpoint.get(endpoint).invoke(body=b"1", content_type="application/json", inference_component_name="component-v3")
assert json.load(answer.body)["model"] == model
component.update_runtime_configs(desired_runtime_config=InferenceComponentRuntimeConfig(copy_count=2))
component.wait_for_status("InService", poll=1, timeout=120)
assert component.runtime_config.current_copy_count == 2, component.runtime_config
component.delete()
component.wait_for_delete(poll=1, timeout=120)
print("all is well")
"""


def test_version_3_of_the_sdk_deploys_a_component(scene, tmp_path):
    scene = scene("component-version-3")
    scene.model("component-v3-model")
    (tmp_path / "deploy.py").write_text(SDK3)
    done = subprocess.run(
        [os.environ["MODELYARD_SDK3_PYTHON"], "deploy.py", scene.name, "component-v3-model"],
        cwd=tmp_path,
        env=scene.server.environment(),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert "all is well" in done.stdout, done.stdout + done.stderr
