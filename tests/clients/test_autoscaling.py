"""Endpoints that follow the load, the clock and a restart: out, in, to zero and back, without a failed request."""

import concurrent.futures
import datetime
import json

import pytest
from conftest import Endpoints, Server, poll, stop_all

# Answers when its gate lets it, so that the load is what the test says and no time is measured.
HELD = """
import os, urllib.request
def model_fn(model_dir): return None
def predict_fn(data, model):
    if str(data).startswith("http"): urllib.request.urlopen(str(data)).read()
    return {"pid": os.getpid()}
"""

DIMENSION = "sagemaker:variant:DesiredInstanceCount"
CONCURRENCY = {"PredefinedMetricType": "SageMakerVariantConcurrentRequestsPerModelHighResolution"}
INVOCATIONS = {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"}


@pytest.fixture(scope="module")
def scaled(tmp_path_factory):
    """A server whose policies take replicas away after two seconds of a low metric."""
    data = tmp_path_factory.mktemp("scaling") / "data"
    data.mkdir()
    (data / "modelyard.toml").write_text("scale_in_after_seconds = 2\n")
    server = Server(data).start()
    server.client("s3").create_bucket(Bucket="sagemaker-us-east-1-" + server.connection["account"])
    yield server
    stop_all(server)


class Scene:
    """An endpoint of one variant of the same name, and what scales it."""

    def __init__(self, server, name):
        self.server, self.name = server, name
        bucket = "sagemaker-us-east-1-" + server.connection["account"]
        role = server.client("iam").get_role(RoleName="ModelyardExecutionRole")["Role"]["Arn"]
        self.endpoints = Endpoints(server, bucket, role)
        self.target = {
            "ServiceNamespace": "sagemaker",
            "ResourceId": f"endpoint/{name}/variant/{name}",
            "ScalableDimension": DIMENSION,
        }
        endpoint = self.endpoints.deploy(name, HELD)
        assert endpoint["EndpointStatus"] == "InService", endpoint.get("FailureReason")

    @property
    def scaling(self):
        return self.server.client("application-autoscaling")

    def register(self, least, most, **more):
        self.scaling.register_scalable_target(**self.target, MinCapacity=least, MaxCapacity=most, **more)

    def track(self, value, metric, **more):
        configuration = {
            "TargetValue": value,
            "PredefinedMetricSpecification": metric,
            "ScaleInCooldown": 0,
            "ScaleOutCooldown": 0,
            **more,
        }
        self.scaling.put_scaling_policy(
            **self.target,
            PolicyName="track",
            PolicyType="TargetTrackingScaling",
            TargetTrackingScalingPolicyConfiguration=configuration,
        )

    def instances(self):
        [variant] = self.endpoints.sagemaker.describe_endpoint(EndpointName=self.name)["ProductionVariants"]
        return variant["CurrentInstanceCount"], variant["DesiredInstanceCount"]

    def wait(self, count, status="InService"):
        def there():
            endpoint = self.endpoints.sagemaker.describe_endpoint(EndpointName=self.name)
            [variant] = endpoint["ProductionVariants"]
            counts = variant["CurrentInstanceCount"], variant["DesiredInstanceCount"]
            return counts == (count, count) and endpoint["EndpointStatus"] == status

        poll(there, f"{self.name} has {count} instances", 60)

    def activities(self, **more):
        """Once none is under way any more."""

        def ended():
            found = self.scaling.describe_scaling_activities(
                ServiceNamespace="sagemaker", ResourceId=self.target["ResourceId"], **more
            )["ScalingActivities"]
            return found if all(one["StatusCode"] != "InProgress" for one in found) else None

        return poll(ended, "all activities have ended")


@pytest.fixture
def scene(scaled):
    scenes = []

    def make(name):
        scenes.append(Scene(scaled, name))
        return scenes[-1]

    yield make
    for made in scenes:
        made.endpoints.delete(made.name)


def test_the_load_brings_instances_and_takes_them_away_down_to_zero(scene, gate):
    scene = scene("scaling-load")
    scene.register(0, 3)
    scene.track(1.0, CONCURRENCY)
    url, opened = gate
    body = json.dumps(url)
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        asked = [pool.submit(scene.endpoints.invoke, scene.name, body) for _ in range(6)]
        try:
            scene.wait(3)
        finally:
            opened.set()
        pids = {json.load(one.result()["Body"])["pid"] for one in asked}
    assert pids, "every request is answered"
    scene.wait(0)
    activities = scene.activities()
    assert {one["StatusCode"] for one in activities} <= {"Successful", "Overridden"}
    assert "Setting desired instance count to 0." == activities[0]["Description"]
    assert "below the target 1" in activities[0]["Cause"] and "above the target 1" in activities[-1]["Cause"]

    # The request that finds nobody is held and answered by the replica that it wakes.
    answer = scene.endpoints.invoke(scene.name, b"1")
    assert json.load(answer["Body"])["pid"] > 0
    woken = next(one for one in scene.activities() if "request arrived" in one["Cause"])
    assert woken["Description"] == "Setting desired instance count to 1."
    scene.wait(0)
    shown = scene.server.command("endpoints", "scaling", scene.name)
    assert "keeps SageMakerVariantConcurrentRequestsPerModelHighResolution at 1" in shown
    assert "a request arrived while the desired instance count was 0" in shown
    everything = json.loads(scene.server.command("endpoints", "scaling", scene.name, "--output", "json"))
    assert everything["ScalableTargets"][0]["MinCapacity"] == 0


def test_invocations_scale_out_to_the_most_and_say_why_not_more(scene):
    scene = scene("scaling-invocations")
    scene.register(1, 2)
    scene.track(5.0, INVOCATIONS)
    for _ in range(30):
        scene.endpoints.invoke(scene.name, b"1")
    scene.wait(2)
    [moved] = scene.activities()
    assert "invocations per instance in the last minute" in moved["Cause"] and "policy track" in moved["Cause"]
    assert moved["StatusCode"] == "Successful" and moved["EndTime"] >= moved["StartTime"]
    refused = poll(
        lambda: [one for one in scene.activities(IncludeNotScaledActivities=True) if "NotScaledReasons" in one],
        "it says why there are no more",
    )
    assert refused[0]["NotScaledReasons"][0]["Code"] == "AlreadyAtMaxCapacity"
    assert refused[0]["NotScaledReasons"][0]["MaxCapacity"] == 2

    cloudwatch = scene.server.client("cloudwatch")
    now = datetime.datetime.now(datetime.UTC)

    def metric(name, statistic, namespace="AWS/SageMaker"):
        found = cloudwatch.get_metric_data(
            StartTime=now - datetime.timedelta(minutes=10),
            EndTime=now + datetime.timedelta(minutes=10),
            MetricDataQueries=[
                {
                    "Id": "m",
                    "MetricStat": {
                        "Metric": {
                            "Namespace": namespace,
                            "MetricName": name,
                            "Dimensions": [
                                {"Name": "EndpointName", "Value": scene.name},
                                {"Name": "VariantName", "Value": scene.name},
                            ],
                        },
                        "Period": 3600,
                        "Stat": statistic,
                    },
                }
            ],
        )
        return sum(found["MetricDataResults"][0]["Values"])

    poll(lambda: metric("Invocations", "Sum") == 30, "all invocations are counted")
    assert 0 < metric("InvocationsPerInstance", "Sum") <= 30
    assert metric("Invocation5XXErrors", "Sum") == 0 and metric("Invocation4XXErrors", "SampleCount") == 30
    assert 0 < metric("ModelLatency", "p50") <= metric("ModelLatency", "p99") < 60_000_000
    assert metric("OverheadLatency", "SampleCount") == 30
    poll(lambda: metric("MemoryUtilization", "Maximum", "/aws/sagemaker/Endpoints") > 0, "replicas are measured")


def test_a_scheduled_action_moves_the_bounds_and_the_capacity_follows(scene):
    scene = scene("scaling-clock")
    scene.register(1, 1)
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=2)
    scene.scaling.put_scheduled_action(
        **scene.target,
        ScheduledActionName="morning",
        Schedule=soon.strftime("at(%Y-%m-%dT%H:%M:%S)"),
        ScalableTargetAction={"MinCapacity": 2, "MaxCapacity": 3},
    )
    [action] = scene.scaling.describe_scheduled_actions(
        ServiceNamespace="sagemaker", ResourceId=scene.target["ResourceId"]
    )["ScheduledActions"]
    assert action["ScheduledActionName"] == "morning"
    scene.wait(2)
    causes = [one["Cause"] for one in scene.activities()]
    assert causes == ["minimum capacity was set to 2", "scheduled action name morning was triggered"]
    scene.scaling.delete_scheduled_action(**scene.target, ScheduledActionName="morning")


def test_a_restart_in_between_loses_nothing(scene):
    scene = scene("scaling-restart")
    scene.register(2, 2)
    poll(lambda: scene.instances()[1] == 2, "two are wanted")
    scene.server.kill()
    scene.server.start()
    scene.wait(2)
    assert json.load(scene.endpoints.invoke(scene.name, b"1")["Body"])["pid"] > 0
    [moved] = scene.activities()
    assert (moved["StatusCode"], moved["Cause"]) == ("Successful", "minimum capacity was set to 2")
    scene.register(0, 2)
    scene.track(1.0, CONCURRENCY)
    scene.wait(0)
    scene.server.kill()
    scene.server.start()
    assert scene.instances() == (0, 0)
    assert json.load(scene.endpoints.invoke(scene.name, b"1")["Body"])["pid"] > 0


def test_an_alarm_runs_a_step_policy_for_as_long_as_it_lasts(scene):
    scene = scene("step")
    scene.register(1, 3)
    steps = {
        "AdjustmentType": "ChangeInCapacity",
        "StepAdjustments": [{"MetricIntervalLowerBound": 0, "ScalingAdjustment": 1}],
        "Cooldown": 1,
    }
    policy = scene.scaling.put_scaling_policy(
        **scene.target, PolicyName="step", PolicyType="StepScaling", StepScalingPolicyConfiguration=steps
    )["PolicyARN"]
    cloudwatch = scene.server.client("cloudwatch")
    cloudwatch.put_metric_alarm(
        AlarmName="backlog",
        Namespace="Own",
        MetricName="Backlog",
        Statistic="Maximum",
        Period=1,
        EvaluationPeriods=1,
        Threshold=10,
        ComparisonOperator="GreaterThanThreshold",
        TreatMissingData="ignore",
        AlarmActions=[policy],
    )
    cloudwatch.put_metric_data(Namespace="Own", MetricData=[{"MetricName": "Backlog", "Value": 50, "StorageResolution": 1}])
    # One instance by the alarm's new state, another one because it stays there.
    scene.wait(3)
    causes = [activity["Cause"] for activity in scene.activities()]
    assert len(causes) >= 2 and all("backlog" in cause for cause in causes), causes
    [alarm] = cloudwatch.describe_alarms(AlarmNames=["backlog"])["MetricAlarms"]
    assert alarm["StateValue"] == "ALARM"
    [shown] = scene.scaling.describe_scaling_policies(ServiceNamespace="sagemaker", PolicyNames=["step"])["ScalingPolicies"]
    assert shown["Alarms"] == [{"AlarmName": "backlog", "AlarmARN": alarm["AlarmArn"]}]
    cloudwatch.delete_alarms(AlarmNames=["backlog"])
