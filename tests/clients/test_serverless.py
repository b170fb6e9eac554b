"""Serverless endpoints: they sleep, wake, grow up to their limits, keep their memory limit, and survive the server."""

import concurrent.futures
import json
import pathlib
import subprocess
import sys

import botocore.exceptions
import pytest
from conftest import PYTORCH_INFERENCE, Endpoints, Server, archive, poll, stop_all
from faults import FaultyServer, perhaps_its_last

# Answers when its gate lets it; takes as much memory as it is told.
OBEDIENT = """
import os, urllib.request, uuid
REPLICA = uuid.uuid4().hex
def model_fn(model_dir): return None
def predict_fn(data, model):
    data = str(data)
    if data.startswith("http"): urllib.request.urlopen(data).read()
    if data.startswith("take"): return {"taken": len(bytearray(os.urandom(1 << 20) * int(data.split()[1])))}
    if data.startswith("say"): return "x" * int(data.split()[1])
    return {"replica": REPLICA}
"""


# Says whether a module was there before the script imported it, and when its process started, in ticks.
EARLY = """
import sys
WAS_THERE = "colorsys" in sys.modules
import colorsys
def model_fn(model_dir): return None
def predict_fn(data, model):
    with open("/proc/self/stat") as file: started = int(file.read().rpartition(")")[2].split()[19])
    return {"was_there": WAS_THERE, "started": started}
"""


@pytest.fixture(scope="module")
def lazy(tmp_path_factory):
    """A server whose serverless replicas go after a second without need."""
    data = tmp_path_factory.mktemp("serverless") / "data"
    data.mkdir()
    (data / "modelyard.toml").write_text("[endpoints]\nserverless_idle_seconds = 1\n")
    server = Server(data).start()
    yield server
    stop_all(server)


class Serverless(Endpoints):
    def __init__(self, server):
        role = server.client("iam").get_role(RoleName="ModelyardExecutionRole")["Role"]["Arn"]
        bucket = "sagemaker-us-east-1-" + server.connection["account"]
        s3 = server.client("s3")
        if bucket not in [one["Name"] for one in s3.list_buckets()["Buckets"]]:
            s3.create_bucket(Bucket=bucket)
        super().__init__(server, bucket, role)
        self.server = server

    def serverless_config(self, name, model, memory=1024, most=3, **more):
        self.sagemaker.create_endpoint_config(
            EndpointConfigName=name,
            ProductionVariants=[
                {
                    "VariantName": "AllTraffic",
                    "ModelName": model,
                    "ServerlessConfig": {"MemorySizeInMB": memory, "MaxConcurrency": most, **more},
                }
            ],
        )

    def deploy_serverless(self, name, script=OBEDIENT, environment=None, **config):
        self.model(name, script, Environment=environment or {})
        self.serverless_config(name, name, **config)
        self.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
        return self.wait(name)

    def variant(self, name):
        [variant] = self.sagemaker.describe_endpoint(EndpointName=name)["ProductionVariants"]
        return variant

    def awake(self, name, count):
        poll(lambda: self.variant(name)["CurrentInstanceCount"] == count, f"{name} has {count} replicas awake", 60)

    def hosts(self, name):
        """The processes of its model hosts: when each started, in ticks, and its command line."""
        found = {}
        for process in pathlib.Path("/proc").iterdir():
            try:
                command = (process / "cmdline").read_text().split("\0")
                if command[1:3] == ["-m", "model_host"] and f"/ep-{name}-" in (process / "mountinfo").read_text():
                    found[process.name] = (int((process / "stat").read_text().rpartition(")")[2].split()[19]), command)
            except (OSError, ValueError):
                continue  # no process, or one that has just ended
        return found

    def standby(self, name, before=()):
        """When the host that stands by for it and its worker started, once nothing else is there, nor what was `before`."""

        def stands_by():
            hosts = self.hosts(name).values()
            is_there = len(hosts) == 2 and all("--standby" in command and start not in before for start, command in hosts)
            return {start for start, _ in hosts} if is_there else None

        return poll(stands_by, f"a process stands by for {name}", 60)

    def replica(self, name):
        return json.load(self.invoke(name, b"1")["Body"])["replica"]


@pytest.fixture
def serverless(lazy):
    made = Serverless(lazy)
    before = {one["EndpointName"] for one in made.sagemaker.list_endpoints()["Endpoints"]}
    yield made
    for one in made.sagemaker.list_endpoints()["Endpoints"]:
        if one["EndpointName"] not in before:
            made.delete(one["EndpointName"])


@pytest.fixture
def gate(gate):
    """The same in the words of a body."""
    url, opened = gate
    return json.dumps(url), opened


def test_it_sleeps_and_a_held_request_wakes_it_also_after_a_restart(serverless):
    endpoint = serverless.deploy_serverless("serverless-sleeper", most=4)
    assert endpoint["EndpointStatus"] == "InService", endpoint.get("FailureReason")
    variant = serverless.variant("serverless-sleeper")
    wanted = {"MemorySizeInMB": 1024, "MaxConcurrency": 4}
    assert variant["CurrentServerlessConfig"] == variant["DesiredServerlessConfig"] == wanted
    serverless.awake("serverless-sleeper", 0)
    first = serverless.replica("serverless-sleeper")
    processes = serverless.hosts("serverless-sleeper").keys()
    poll(lambda: not processes & serverless.hosts("serverless-sleeper").keys(), "the replica has gone", 60)
    serverless.server.kill()
    serverless.server.start()
    assert serverless.sagemaker.describe_endpoint(EndpointName="serverless-sleeper")["EndpointStatus"] == "InService"
    assert serverless.replica("serverless-sleeper") != first
    assert "serverless-sleeper" in serverless.server.command("endpoints")


def test_while_it_sleeps_a_process_stands_by_with_its_imports_and_outlives_the_server(serverless):
    name = "serverless-early"
    serverless.deploy_serverless(name, EARLY, most=1)

    def answer():
        return json.load(serverless.invoke(name, b"1")["Body"])

    assert not answer()["was_there"]
    serverless.awake(name, 0)
    early = serverless.standby(name)
    assert serverless.variant(name)["CurrentInstanceCount"] == 0
    woken = answer()
    assert woken["was_there"] and woken["started"] in early, (woken, early)
    # A server that is killed leaves it, and the next one has it.
    serverless.awake(name, 0)
    later = serverless.standby(name, early)
    serverless.server.kill()
    serverless.server.start()
    assert answer()["was_there"]
    serverless.awake(name, 0)
    serverless.standby(name, later)
    serverless.delete(name)
    poll(lambda: not serverless.hosts(name), "no process is left", 60)


def test_the_request_beyond_the_most_is_throttled(serverless, gate):
    name = "serverless-busy"
    serverless.deploy_serverless(name, most=2)
    url, opened = gate
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        held = [pool.submit(serverless.invoke, name, url) for _ in range(2)]
        try:
            serverless.awake(name, 2)

            def refused():
                try:
                    serverless.invoke(name, b"1")
                except botocore.exceptions.ClientError as error:
                    return error.response
                return None

            answer = poll(refused, "one too many is refused", 30)
            assert answer["Error"]["Code"] == "ThrottlingException", answer
            assert answer["ResponseMetadata"]["HTTPStatusCode"] == 429
            # More at once, in place.
            serverless.sagemaker.update_endpoint_weights_and_capacities(
                EndpointName=name,
                DesiredWeightsAndCapacities=[
                    {
                        "VariantName": "AllTraffic",
                        "ServerlessUpdateConfig": {"MaxConcurrency": 3, "ProvisionedConcurrency": 1},
                    }
                ],
            )
            serverless.wait(name)
            assert serverless.replica(name)
        finally:
            opened.set()
        assert len({json.load(one.result()["Body"])["replica"] for one in held}) == 2
    # What is provisioned stays awake.
    serverless.awake(name, 1)
    shown = serverless.variant(name)["CurrentServerlessConfig"]
    assert shown == {"MemorySizeInMB": 1024, "MaxConcurrency": 3, "ProvisionedConcurrency": 1}


def test_a_model_that_cannot_load_fails_the_endpoint(serverless):
    endpoint = serverless.deploy_serverless("serverless-broken", "def model_fn(model_dir): raise RuntimeError('no weights')\n")
    assert endpoint["EndpointStatus"] == "Failed" and "no weights" in endpoint["FailureReason"]


def test_a_request_that_takes_more_memory_than_the_variant_has_is_told_so(serverless):
    name = "serverless-hungry"
    serverless.deploy_serverless(name, most=1, environment={"MODELYARD_SERVERLESS_IDLE_SECONDS": "600"})
    with pytest.raises(serverless.runtime.exceptions.ModelError) as caught:
        serverless.invoke(name, json.dumps("take 3000"))
    message = caught.value.response["Error"]["Message"]
    assert "memory" in message.lower(), message
    assert serverless.replica(name)


def test_bodies_are_limited_as_in_the_service(serverless):
    name = "serverless-large"
    serverless.deploy_serverless(name, environment={"MODELYARD_SERVERLESS_IDLE_SECONDS": "600"})
    most = 4 << 20
    whole = json.dumps("x" * (most - 2)).encode()
    assert len(whole) == most
    assert json.load(serverless.invoke(name, whole)["Body"])["replica"]
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        serverless.invoke(name, whole + b" ")
    answer = caught.value.response
    assert (answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]) == ("ValidationError", 400)
    assert "has oversize body" in answer["Error"]["Message"]
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        serverless.invoke(name, json.dumps("say %d" % (most + 1)))
    answer = caught.value.response["Error"]
    assert answer["Code"] == "ValidationError" and str(most) in answer["Message"], answer


def test_instances_do_not_become_serverless_and_the_other_way_round_they_do(serverless):
    name = "serverless-changing"
    serverless.deploy_serverless(name)
    serverless.sagemaker.create_endpoint_config(
        EndpointConfigName=name + "-instances",
        ProductionVariants=[
            {"VariantName": "AllTraffic", "ModelName": name, "InitialInstanceCount": 1, "InstanceType": "ml.m5.large"}
        ],
    )
    serverless.sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=name + "-instances")
    assert serverless.wait(name)["EndpointStatus"] == "InService"
    assert "CurrentServerlessConfig" not in serverless.variant(name) and serverless.replica(name)
    with pytest.raises(serverless.sagemaker.exceptions.ClientError, match="cannot be updated to a serverless endpoint"):
        serverless.sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=name)


def test_provisioned_concurrency_follows_its_bounds(serverless):
    name = "serverless-provisioned"
    serverless.deploy_serverless(name, most=3)
    scaling = serverless.server.client("application-autoscaling")
    target = {"ServiceNamespace": "sagemaker", "ResourceId": f"endpoint/{name}/variant/AllTraffic"}
    provisioned = {**target, "ScalableDimension": "sagemaker:variant:DesiredProvisionedConcurrency"}
    with pytest.raises(botocore.exceptions.ClientError, match="is serverless and has no instances"):
        scaling.register_scalable_target(
            **target, ScalableDimension="sagemaker:variant:DesiredInstanceCount", MinCapacity=1, MaxCapacity=2
        )
    with pytest.raises(botocore.exceptions.ClientError, match="MaxConcurrency, 3"):
        scaling.register_scalable_target(**provisioned, MinCapacity=1, MaxCapacity=4)
    scaling.register_scalable_target(**provisioned, MinCapacity=2, MaxCapacity=3)
    poll(
        lambda: serverless.variant(name)["CurrentServerlessConfig"].get("ProvisionedConcurrency") == 2,
        "the minimum is provisioned",
        60,
    )
    serverless.awake(name, 2)
    configuration = {
        "TargetValue": 0.7,
        "PredefinedMetricSpecification": {"PredefinedMetricType": "SageMakerVariantProvisionedConcurrencyUtilization"},
    }
    policy = {"PolicyName": "track", "PolicyType": "TargetTrackingScaling"}
    scaling.put_scaling_policy(**provisioned, **policy, TargetTrackingScalingPolicyConfiguration=configuration)
    configuration["PredefinedMetricSpecification"]["PredefinedMetricType"] = "SageMakerVariantInvocationsPerInstance"
    with pytest.raises(botocore.exceptions.ClientError, match="SageMakerVariantProvisionedConcurrencyUtilization"):
        scaling.put_scaling_policy(**provisioned, **policy, TargetTrackingScalingPolicyConfiguration=configuration)

    def ended():
        [activity] = scaling.describe_scaling_activities(**provisioned)["ScalingActivities"]
        return activity if activity["StatusCode"] != "InProgress" else None

    activity = poll(ended, "the change has ended", 60)
    assert activity["StatusCode"] == "Successful", activity
    assert activity["Description"] == "Setting desired provisioned concurrency to 2."


SDK = """
import sys
import sagemaker
from sagemaker.deserializers import JSONDeserializer
from sagemaker.model import Model
from sagemaker.predictor import Predictor
from sagemaker.serializers import JSONSerializer
from sagemaker.serverless import ServerlessInferenceConfig

image, data, role, name = sys.argv[1:]
model = Model(image, model_data=data, role=role, name=name, predictor_cls=Predictor, sagemaker_session=sagemaker.Session())
predictor = model.deploy(
    endpoint_name=name,
    serverless_inference_config=ServerlessInferenceConfig(memory_size_in_mb=2048, max_concurrency=2),
    serializer=JSONSerializer(),
    deserializer=JSONDeserializer(),
)
assert predictor.predict(1)["replica"]
print("all is well")
"""


def test_the_sdk_deploys_a_serverless_model(serverless, tmp_path):
    name = "serverless-sdk"
    key = f"endpoints/{name}/model.tar.gz"
    serverless.s3.put_object(Bucket=serverless.bucket, Key=key, Body=archive({"code/inference.py": OBEDIENT}))
    (tmp_path / "deploy.py").write_text(SDK)
    done = subprocess.run(
        [sys.executable, "deploy.py", PYTORCH_INFERENCE, f"s3://{serverless.bucket}/{key}", serverless.role, name],
        cwd=tmp_path,
        env=serverless.server.environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "all is well" in done.stdout, done.stdout + done.stderr
    config = serverless.variant(name)["CurrentServerlessConfig"]
    assert config == {"MemorySizeInMB": 2048, "MaxConcurrency": 2}
    serverless.awake(name, 0)
    assert serverless.replica(name)


def test_a_server_that_is_killed_while_it_unpacks_the_model_serves_after_all(tmp_path):
    server = FaultyServer(tmp_path).start()
    try:
        serverless = Serverless(server)
        serverless.model("serverless-killed", OBEDIENT)
        serverless.serverless_config("serverless-killed", "serverless-killed")
        server.arm("unpacked-model")
        with perhaps_its_last(server):
            serverless.sagemaker.create_endpoint(EndpointName="serverless-killed", EndpointConfigName="serverless-killed")
        poll(server.has_died, "the server is killed with the model half there", 60)
        server.disarm("unpacked-model")
        server.restart()
        assert serverless.wait("serverless-killed")["EndpointStatus"] == "InService"
        assert serverless.replica("serverless-killed")
        [model] = (server.data_dir / "replicas" / "unpacked").iterdir()
        assert not model.name.startswith(".partial")
    finally:
        stop_all(server)
