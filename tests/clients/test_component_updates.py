"""Updates of inference components: under load, without room, taken back by an alarm, and cut off by kills."""

import textwrap

import pytest
from botocore.exceptions import ClientError
from component_scenes import SCRIPT, Callers, Scene, scene, shared  # noqa: F401 (fixtures)
from conftest import poll
from faults import Steadily, faulty, perhaps_its_last, turnstile  # noqa: F401 (fixtures)


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
        with perhaps_its_last(faulty):
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
        with perhaps_its_last(faulty):
            cloudwatch.set_alarm_state(AlarmName="complaints", StateValue="ALARM", StateReason="test")
        kills = load.through_each_step(in_service(scene))
        load.more()
        last = load.more()
    assert load.errors == [] and set(load.answers) == {name, "new"} and set(last) == {name}
    found = scene.describe(name)
    assert found["Specification"]["ModelName"] == name and "went into the state ALARM" in found["FailureReason"]
    assert kills == 2, "each step back was cut off once"
    only(scene, 3)
