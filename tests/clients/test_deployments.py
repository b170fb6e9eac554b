"""Deployments with guardrails under steady load: canary, linear, rolling, plain; good ones stay, bad ones go back by themselves."""

import collections
import json
import threading

import pytest
from botocore.exceptions import ClientError
from conftest import Endpoints, UnderLoad, poll
from faults import Steadily, faulty, perhaps_its_last, turnstile  # noqa: F401 (fixtures)

# Too long for a label, so that the guard of outputs has nothing to compare but the score.
VERSION = """
def model_fn(model_dir): return {version!r}.ljust(80)
def predict_fn(data, model): return {{"version": model, "score": {score}}}
"""

FAILING = """
def model_fn(model_dir): return None
def predict_fn(data, model): raise RuntimeError("this version cannot predict")
"""


class Load(UnderLoad):
    """Clients that invoke an endpoint one request after another, and count what each version answered."""

    def __init__(self, server, endpoint, count=3):
        self.seen, self.errors = collections.Counter(), []
        self.over, self.lock = threading.Event(), threading.Lock()
        clients = [server.client("sagemaker-runtime") for _ in range(count)]
        self.threads = [threading.Thread(target=self.call, args=(client, endpoint)) for client in clients]

    def call(self, runtime, endpoint):
        while not self.over.is_set():
            try:
                answer = runtime.invoke_endpoint(EndpointName=endpoint, Body=b"1", ContentType="application/json")
                version = json.load(answer["Body"])["version"].strip()
                with self.lock:
                    self.seen[version] += 1
            except Exception as error:
                with self.lock:
                    self.errors.append(error)

    def more(self, version, count):
        """Waits until this version has answered so often again."""
        before = self.seen[version]
        poll(lambda: self.seen[version] >= before + count, f"{version} answers")


def version(name, score=1):
    return VERSION.format(version=name, score=score)


def answered(endpoints, name):
    return json.load(endpoints.invoke(name, b"1")["Body"])["version"].strip()


def size(percent):
    return {"Type": "CAPACITY_PERCENT", "Value": percent}


def blue_green(kind, wait=1, keep=0, alarms=(), **sizes):
    config = {
        "BlueGreenUpdatePolicy": {
            "TrafficRoutingConfiguration": {"Type": kind, "WaitIntervalInSeconds": wait, **sizes},
            "TerminationWaitInSeconds": keep,
        }
    }
    if alarms:
        config["AutoRollbackConfiguration"] = {"Alarms": [{"AlarmName": name} for name in alarms]}
    return config


def prepare(endpoints, name, instances=1, new=None):
    """An endpoint with the version `old`, and a configuration NAME-new of the same variant."""
    for side, script in (("old", version("old")), ("new", new or version("new"))):
        endpoints.model(f"{name}-{side}", script)
        variant = {
            "VariantName": "AllTraffic", "ModelName": f"{name}-{side}",
            "InitialInstanceCount": instances, "InstanceType": "ml.m5.large",
        }
        endpoints.sagemaker.create_endpoint_config(EndpointConfigName=f"{name}-{side}", ProductionVariants=[variant])
    endpoints.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=f"{name}-old")
    assert endpoints.wait(name)["EndpointStatus"] == "InService"


def update(endpoints, name, config=None, **more):
    if config:
        more["DeploymentConfig"] = config
    endpoints.sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=f"{name}-new", **more)


def describe(endpoints, name):
    return endpoints.sagemaker.describe_endpoint(EndpointName=name)


def settled(endpoints, name):
    def done():
        endpoint = describe(endpoints, name)
        return endpoint if endpoint["EndpointStatus"] not in ("Updating", "RollingBack") else None

    return poll(done, f"{name} has settled")


def deployment(server, name):
    return json.loads(server.command("endpoints", "deployment", name, "--output", "json"))


def test_a_good_canary_takes_over_and_drops_no_request(endpoints, server):
    name = "deployments-canary"
    prepare(endpoints, name)
    config = blue_green("CANARY", wait=1, keep=1, CanarySize=size(20))
    with Load(server, name) as load:
        load.more("old", 20)
        update(endpoints, name, config)
        endpoint = describe(endpoints, name)
        assert endpoint["EndpointStatus"] == "Updating" and endpoint["EndpointConfigName"] == f"{name}-old"
        pending = endpoint["PendingDeploymentSummary"]
        assert pending["EndpointConfigName"] == f"{name}-new" and pending["ProductionVariants"][0]["VariantName"] == "AllTraffic"
        with pytest.raises(ClientError, match="Cannot update in-progress endpoint"):
            update(endpoints, name)
        endpoint = settled(endpoints, name)
        assert endpoint["EndpointStatus"] == "InService" and "FailureReason" not in endpoint
        assert endpoint["EndpointConfigName"] == f"{name}-new" and "PendingDeploymentSummary" not in endpoint
        assert endpoint["LastDeploymentConfig"] == config
        load.more("new", 20)
    assert load.errors == []
    last = deployment(server, name)["Last"]
    assert last["Outcome"] == "Deployed"
    steps = [(step["Stage"], step["TrafficShare"]) for step in last["Steps"]]
    assert steps == [("Starting", 0.0), ("Baking", 0.2), ("Baking", 1.0), ("Keeping", 1.0)]
    assert "was deployed" in server.command("endpoints", "deployment", name)
    endpoints.delete(name)


def test_a_bad_canary_goes_back_by_the_guard_of_errors(endpoints, server):
    name = "deployments-bad"
    prepare(endpoints, name, new=FAILING)
    with Load(server, name) as load:
        load.more("old", 40)
        update(endpoints, name, blue_green("CANARY", wait=300, CanarySize=size(30)))
        endpoint = settled(endpoints, name)
        failed = len(load.errors)
        load.more("old", 20)
        assert len(load.errors) <= failed + len(load.threads), "the bad version answers no more"
    assert endpoint["EndpointStatus"] == "InService" and endpoint["EndpointConfigName"] == f"{name}-old"
    assert "Guard 5XX rate: 100.0 % of" in endpoint["FailureReason"] and "the limit is" in endpoint["FailureReason"]
    assert load.errors and all("cannot predict" in str(error) for error in load.errors)
    last = deployment(server, name)["Last"]
    assert last["Outcome"] == "RolledBack" and last["Steps"][-1]["Stage"] == "RollingBack"
    assert "BREACHED" in server.command("endpoints", "deployment", name)
    endpoints.delete(name)


def test_outputs_that_drift_take_a_canary_back(endpoints, server):
    name = "deployments-drift"
    prepare(endpoints, name, new=version("new", score=7))
    with Load(server, name) as load:
        load.more("old", 20)
        update(endpoints, name, blue_green("CANARY", wait=300, CanarySize=size(50)))
        endpoint = settled(endpoints, name)
        load.more("old", 20)
    assert load.errors == [] and load.seen["new"] >= 100
    assert endpoint["EndpointConfigName"] == f"{name}-old"
    assert "Guard output drift: the distribution of numbers" in endpoint["FailureReason"]
    assert "is 1.00 away from before, the limit is 0.35" in endpoint["FailureReason"]
    endpoints.delete(name)


def test_an_alarm_rolls_a_linear_deployment_back(endpoints, server):
    name, cloudwatch = "deployments-linear", server.client("cloudwatch")
    prepare(endpoints, name)
    config = blue_green("LINEAR", wait=300, alarms=[f"{name}-alarm"], LinearStepSize=size(25))
    with pytest.raises(ClientError, match=f"the alarm {name}-alarm does not exist"):
        update(endpoints, name, config)
    cloudwatch.put_metric_alarm(
        AlarmName=f"{name}-alarm", Namespace=name, MetricName="bad", Statistic="Sum", Period=3600, EvaluationPeriods=1,
        Threshold=1, ComparisonOperator="GreaterThanThreshold", TreatMissingData="ignore",
    )
    cloudwatch.set_alarm_state(AlarmName=f"{name}-alarm", StateValue="ALARM", StateReason="test")
    with pytest.raises(ClientError, match="is in the state ALARM"):
        update(endpoints, name, config)
    cloudwatch.set_alarm_state(AlarmName=f"{name}-alarm", StateValue="OK", StateReason="test")
    with Load(server, name) as load:
        update(endpoints, name, config)
        load.more("new", 5)
        assert describe(endpoints, name)["PendingDeploymentSummary"]["ProductionVariants"][0]["VariantStatus"][0]["Status"] == "Baking"
        assert '"State": "OK"' in server.command("endpoints", "deployment", name, "--output", "json")
        cloudwatch.set_alarm_state(AlarmName=f"{name}-alarm", StateValue="ALARM", StateReason="test")
        endpoint = settled(endpoints, name)
        load.more("old", 20)
    assert load.errors == []
    assert endpoint["EndpointConfigName"] == f"{name}-old"
    assert f"The alarm {name}-alarm went into the state ALARM" in endpoint["FailureReason"]
    endpoints.delete(name)


def test_rolling_replaces_instances_in_batches(endpoints, server):
    name = "deployments-rolling"
    prepare(endpoints, name, instances=2)
    config = {"RollingUpdatePolicy": {"MaximumBatchSize": size(50), "WaitIntervalInSeconds": 1}}
    with Load(server, name) as load:
        load.more("old", 10)
        update(endpoints, name, config)
        endpoint = settled(endpoints, name)
        load.more("new", 20)
    assert load.errors == []
    assert endpoint["EndpointConfigName"] == f"{name}-new"
    assert endpoint["ProductionVariants"][0]["DesiredInstanceCount"] == 2
    steps = [(step["Stage"], step["NewCapacity"], step["OldCapacity"]) for step in deployment(server, name)["Last"]["Steps"]]
    assert steps == [
        ("Starting", 0.5, 1.0), ("Baking", 0.5, 1.0), ("Starting", 1.0, 0.5), ("Baking", 1.0, 0.5), ("Keeping", 1.0, 0.5),
    ]
    endpoints.delete(name)


def test_a_rolling_deployment_brings_its_instances_back(endpoints, server):
    name, cloudwatch = "deployments-rolling-back", server.client("cloudwatch")
    prepare(endpoints, name, instances=2)
    cloudwatch.put_metric_alarm(
        AlarmName=f"{name}-alarm", Namespace=name, MetricName="bad", Statistic="Sum", Period=3600, EvaluationPeriods=1,
        Threshold=1, ComparisonOperator="GreaterThanThreshold", TreatMissingData="ignore",
    )
    config = {
        "RollingUpdatePolicy": {"MaximumBatchSize": {"Type": "INSTANCE_COUNT", "Value": 1}, "WaitIntervalInSeconds": 2},
        "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": f"{name}-alarm"}]},
    }
    with Load(server, name) as load:
        load.more("old", 10)
        update(endpoints, name, config)
        # The second batch: one instance of the fleet before is gone.
        poll(lambda: len(deployment(server, name)["Current"]["Steps"]) >= 3, "the second batch starts")
        cloudwatch.set_alarm_state(AlarmName=f"{name}-alarm", StateValue="ALARM", StateReason="test")
        endpoint = settled(endpoints, name)
        load.more("old", 20)
    assert load.errors == []
    assert endpoint["EndpointConfigName"] == f"{name}-old" and "went into the state ALARM" in endpoint["FailureReason"]
    assert deployment(server, name)["Last"]["Steps"][-1]["OldCapacity"] == 1.0
    poll(lambda: describe(endpoints, name)["ProductionVariants"][0]["CurrentInstanceCount"] == 2, "both are back")
    endpoints.delete(name)


def test_a_plain_update_that_fails_most_requests_goes_back(endpoints, server):
    name = "deployments-plain"
    prepare(endpoints, name, new=FAILING)
    with Load(server, name) as load:
        load.more("old", 30)
        update(endpoints, name)
        last = poll(lambda: deployment(server, name)["Last"], "the traffic is back")
        load.more("old", 20)
    endpoint = describe(endpoints, name)
    assert endpoint["EndpointConfigName"] == f"{name}-old" and last["Outcome"] == "RolledBack"
    assert [step["Stage"] for step in last["Steps"]] == ["Starting", "Keeping", "RollingBack"]
    assert endpoint["EndpointStatus"] == "InService"
    assert "Guard 5XX rate" in endpoint["FailureReason"]
    endpoints.delete(name)


def test_a_fleet_that_does_not_start_leaves_the_endpoint_as_it_was(endpoints):
    name = "deployments-broken"
    prepare(endpoints, name, new="def model_fn(model_dir): raise RuntimeError('weights are missing')\n")
    update(endpoints, name, blue_green("ALL_AT_ONCE"))
    endpoint = settled(endpoints, name)
    assert endpoint["EndpointStatus"] == "InService" and endpoint["EndpointConfigName"] == f"{name}-old"
    assert "weights are missing" in endpoint["FailureReason"]
    assert answered(endpoints, name) == "old"
    # The configuration that was given last is used again.
    endpoints.model(f"{name}-better", version("better"))
    variant = {"VariantName": "AllTraffic", "ModelName": f"{name}-better", "InitialInstanceCount": 1, "InstanceType": "ml.m5.large"}
    endpoints.sagemaker.create_endpoint_config(EndpointConfigName=f"{name}-better", ProductionVariants=[variant])
    endpoints.sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=f"{name}-better", RetainDeploymentConfig=True)
    endpoint = settled(endpoints, name)
    assert endpoint["EndpointConfigName"] == f"{name}-better" and endpoint["LastDeploymentConfig"] == blue_green("ALL_AT_ONCE")
    assert answered(endpoints, name) == "better"
    endpoints.delete(name)


def test_a_deployment_can_be_deleted_with_its_endpoint(endpoints):
    name = "deployments-deleted"
    prepare(endpoints, name)
    update(endpoints, name, blue_green("CANARY", wait=300, CanarySize=size(10)))
    poll(lambda: describe(endpoints, name)["PendingDeploymentSummary"]["ProductionVariants"][0]["VariantStatus"][0]["Status"] == "Baking", "it bakes")
    endpoints.delete(name)
    waiter = endpoints.sagemaker.get_waiter("endpoint_deleted")
    waiter.wait(EndpointName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 60})


def test_a_killed_server_goes_on_in_the_same_stage(own_server):
    name = "deployments-kill"
    role = own_server.client("iam").get_role(RoleName="ModelyardExecutionRole")["Role"]["Arn"]
    own_server.client("s3").create_bucket(Bucket="deployments-kill-bucket")
    endpoints = Endpoints(own_server, "deployments-kill-bucket", role)
    prepare(endpoints, name)
    update(endpoints, name, blue_green("CANARY", wait=6, keep=4, CanarySize=size(50)))

    def steps():
        current = deployment(own_server, name)["Current"]
        return [(step["Stage"], step["TrafficShare"]) for step in current["Steps"]] if current else None

    expected = [("Starting", 0.0), ("Baking", 0.5), ("Baking", 1.0), ("Keeping", 1.0)]
    for count in range(1, len(expected) + 1):
        poll(lambda: steps() is None or len(steps()) >= count, f"step {count}")
        before = steps()
        own_server.kill()
        own_server.start()
        endpoints = Endpoints(own_server, "deployments-kill-bucket", role)
        now = steps()
        # What was written is kept; the clock of a stage goes on while the server is down.
        assert now is None or before is None or now[: len(before)] == before
    with Load(own_server, name) as load:
        load.more("new", 5)
        endpoint = settled(endpoints, name)
        load.more("new", 20)
    assert endpoint["EndpointConfigName"] == f"{name}-new" and endpoint["EndpointStatus"] == "InService"
    last = deployment(own_server, name)["Last"]
    assert [(step["Stage"], step["TrafficShare"]) for step in last["Steps"]] == expected
    assert load.errors == []


def killable(faulty):
    """Endpoints of a server that dies, and a way to ask one from a client that lives on."""
    role = faulty.client("iam").get_role(RoleName="ModelyardExecutionRole")["Role"]["Arn"]
    faulty.client("s3").create_bucket(Bucket="killed")

    def ask(name):
        def version(runtime):
            answer = runtime.invoke_endpoint(EndpointName=name, Body=b"1", ContentType="application/json")
            return json.load(answer["Body"])["version"].strip()

        return version

    return Endpoints(faulty, "killed", role), ask


def over(endpoints, name):
    return lambda: describe(endpoints, name)["EndpointStatus"] == "InService"


def only(faulty, endpoints, name, instances):
    """Waits until these instances are all that runs."""
    running = lambda: describe(endpoints, name)["ProductionVariants"][0]["CurrentInstanceCount"]
    poll(lambda: running() == len(faulty.supervisors()) == instances, f"{instances} instances run, and nothing else")


def test_a_rolling_update_goes_on_after_a_kill_in_each_step(faulty):
    name, (endpoints, ask) = "deployments-rolling-kill", killable(faulty)
    prepare(endpoints, name, instances=2)
    faulty.arm("deployment-moved")
    with Steadily(faulty, ask(name)) as load:
        with perhaps_its_last(faulty):
            update(endpoints, name, {"RollingUpdatePolicy": {"MaximumBatchSize": size(50), "WaitIntervalInSeconds": 1}})
        kills = load.through_each_step(over(endpoints, name))
        load.more()
        last = load.more()
    assert load.errors == [] and set(load.answers) == {"old", "new"} and set(last) == {"new"}
    endpoint = describe(endpoints, name)
    assert endpoint["EndpointConfigName"] == f"{name}-new" and "FailureReason" not in endpoint
    steps = [(step["Stage"], step["NewCapacity"], step["OldCapacity"]) for step in deployment(faulty, name)["Last"]["Steps"]]
    assert steps == [
        ("Starting", 0.5, 1.0), ("Baking", 0.5, 1.0), ("Starting", 1.0, 0.5), ("Baking", 1.0, 0.5), ("Keeping", 1.0, 0.5),
    ]
    assert kills == 4, "each step but the first was cut off once"
    only(faulty, endpoints, name, 2)


def test_a_rolling_update_goes_back_after_a_kill_in_each_step(faulty, turnstile):
    name, (endpoints, ask) = "deployments-rollback-kill", killable(faulty)
    # Two of three new instances start; while the third does, one of the three before is left.
    url, holds = turnstile(2)
    held = f"import urllib.request\nurllib.request.urlopen({url!r}).read()\n"
    prepare(endpoints, name, instances=3, new=held + version("new"))
    cloudwatch = faulty.client("cloudwatch")
    cloudwatch.put_metric_alarm(
        AlarmName=f"{name}-alarm", Namespace=name, MetricName="bad", Statistic="Sum", Period=3600, EvaluationPeriods=1,
        Threshold=1, ComparisonOperator="GreaterThanThreshold", TreatMissingData="ignore",
    )
    one = {"Type": "INSTANCE_COUNT", "Value": 1}
    config = {
        "RollingUpdatePolicy": {"MaximumBatchSize": one, "RollbackMaximumBatchSize": one, "WaitIntervalInSeconds": 0},
        "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": f"{name}-alarm"}]},
    }
    with Steadily(faulty, ask(name)) as load:
        update(endpoints, name, config)
        poll(holds.is_set, "the third batch starts")
        load.kill()
        load.more()
        assert deployment(faulty, name)["Current"]["Steps"][-1]["Stage"] == "Starting"
        faulty.arm("deployment-moved")
        with perhaps_its_last(faulty):
            cloudwatch.set_alarm_state(AlarmName=f"{name}-alarm", StateValue="ALARM", StateReason="test")
        kills = load.through_each_step(over(endpoints, name))
        load.more()
        last = load.more()
    assert load.errors == [] and set(load.answers) == {"old", "new"} and set(last) == {"old"}
    endpoint = describe(endpoints, name)
    assert endpoint["EndpointConfigName"] == f"{name}-old" and "went into the state ALARM" in endpoint["FailureReason"]
    assert [step["OldCapacity"] for step in deployment(faulty, name)["Last"]["Steps"][-2:]] == pytest.approx([2 / 3, 1.0])
    assert kills == 2, "each step back was cut off once"
    only(faulty, endpoints, name, 3)


def test_variants_are_compared(endpoints, server):
    name, cloudwatch = "deployments-compared", server.client("cloudwatch")
    endpoints.model(f"{name}-a", version("a"))
    endpoints.model(f"{name}-b", "def model_fn(model_dir): return None\ndef predict_fn(data, model):\n    if data > 5: raise ValueError('too large')\n    return {'version': 'b'}\n")
    endpoints.config(name, **{f"{name}-a": 1.0, f"{name}-b": 1.0})
    endpoints.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    assert endpoints.wait(name)["EndpointStatus"] == "InService"
    assert "Too few requests" in server.command("endpoints", "compare", name)
    for number in range(10):
        for variant in ("a", "b"):
            for _ in range(6):
                try:
                    endpoints.invoke(name, str(number).encode(), TargetVariant=f"{name}-{variant}")
                except ClientError as error:
                    assert "too large" in str(error)
    for variant, values in (("a", [0.0] * 90 + [1.0] * 10), ("b", [0.0] * 60 + [1.0] * 40)):
        cloudwatch.put_metric_data(
            Namespace=name,
            MetricData=[{"MetricName": "Clicks", "Dimensions": [{"Name": "VariantName", "Value": f"{name}-{variant}"}], "Values": values}],
        )

    def compared():
        found = json.loads(server.command("endpoints", "compare", name, "--namespace", name, "--metric", "Clicks", "--output", "json"))
        return found if all(variant["Requests"] == 60 for variant in found["Variants"]) else None

    found = poll(compared, "all requests are measured")
    rates = {variant["VariantName"]: variant["Rate5XX"] for variant in found["Variants"]}
    assert rates == {f"{name}-a": 0.0, f"{name}-b": pytest.approx(0.4)}
    comparison = found["Comparisons"][0]
    assert comparison["Errors"]["IsSignificant"] and comparison["Errors"]["Difference"] == pytest.approx(0.4)
    assert comparison["Outcome"]["IsSignificant"] and comparison["Outcome"]["Difference"] == pytest.approx(0.3)
    text = server.command("endpoints", "compare", name)
    assert f"{name}-b fails more often than {name}-a" in text
    endpoints.delete(name)


def test_the_sdk_updates_a_predictor(endpoints, server):
    import boto3
    import sagemaker
    from sagemaker.predictor import Predictor

    name = "deployments-sdk"
    prepare(endpoints, name)
    connection = server.connection
    session = boto3.Session(
        aws_access_key_id=connection["access_key_id"], aws_secret_access_key=connection["secret_access_key"], region_name="us-east-1",
    )
    clients = {f"{key}_client": server.client(service) for key, service in (("sagemaker", "sagemaker"), ("sagemaker_runtime", "sagemaker-runtime"))}
    predictor = Predictor(name, sagemaker_session=sagemaker.Session(boto_session=session, default_bucket=endpoints.bucket, **clients))
    predictor.update_endpoint(model_name=f"{name}-new", initial_instance_count=1, instance_type="ml.m5.large")
    assert json.loads(predictor.predict(b"1", initial_args={"ContentType": "application/json"}))["version"].strip() == "new"
    endpoints.delete(name)
