"""Copies of inference components, and the instances under them, that follow the load, alarms and the clock."""

import concurrent.futures
import datetime
import json

from component_scenes import NO_CAPACITY, Callers, Scaling, scene, shared  # noqa: F401 (fixtures)
from conftest import poll


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
