"""Asynchronous endpoints: every accepted request ends in one object, its topic is told, and killed servers lose nothing."""

import concurrent.futures
import json
import random
import threading

import botocore.exceptions
import pytest

from conftest import Endpoints, poll, stop_all
from faults import FaultyServer
from open_tools import call

# What the body asks for happens.
OBEDIENT = """
import json, os, time
def model_fn(model_dir): return None
def transform_fn(model, body, content_type, accept):
    data = body if isinstance(body, str) else body.decode()
    if data == "fail": raise ValueError("no such row")
    if data == "die": os._exit(1)
    if data.startswith("sleep"): time.sleep(float(data.split()[1]))
    return json.dumps({"seen": data, "type": content_type, "worker": os.getpid()}), "application/json"
"""


class AsyncEndpoints(Endpoints):
    def __init__(self, server, bucket, role):
        super().__init__(server, bucket, role)
        self.sns, self.sqs = server.client("sns"), server.client("sqs")

    def deploy_async(self, name, script=OBEDIENT, most_at_once=None, environment=None, **output):
        self.model(name, script, Environment=environment or {})
        client = {"ClientConfig": {"MaxConcurrentInvocationsPerInstance": most_at_once}} if most_at_once else {}
        self.sagemaker.create_endpoint_config(
            EndpointConfigName=name,
            ProductionVariants=[
                {"VariantName": "AllTraffic", "ModelName": name, "InitialInstanceCount": 1, "InstanceType": "ml.m5.large"}
            ],
            AsyncInferenceConfig={"OutputConfig": {"S3OutputPath": f"s3://{self.bucket}/{name}/out", **output}, **client},
        )
        self.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
        endpoint = self.wait(name)
        assert endpoint["EndpointStatus"] == "InService", endpoint.get("FailureReason")
        return endpoint

    def ask(self, name, body, **options):
        """Sends a request whose input is an object of its own; `body` None names one that is not there."""
        key = f"{name}/in/{random.getrandbits(64):x}"
        if body is not None:
            self.s3.put_object(Bucket=self.bucket, Key=key, Body=body, ContentType="text/plain")
        return self.runtime.invoke_endpoint_async(
            EndpointName=name, InputLocation=f"s3://{self.bucket}/{key}", **options
        )

    def object(self, uri):
        bucket, key = uri.removeprefix("s3://").split("/", 1)
        try:
            return self.s3.get_object(Bucket=bucket, Key=key)
        except self.s3.exceptions.NoSuchKey:
            return None

    def output(self, asked):
        return poll(lambda: self.object(asked["OutputLocation"]), "the answer is there")

    def failure(self, asked):
        failure = poll(lambda: self.object(asked["FailureLocation"]), "the failure is there")
        assert self.object(asked["OutputLocation"]) is None
        return json.load(failure["Body"])

    def topic(self, name, raw=False):
        """A topic with a queue; gives the ARN and a function that takes the next message."""
        topic = self.sns.create_topic(Name=name)["TopicArn"]
        url = self.sqs.create_queue(QueueName=name)["QueueUrl"]
        queue = self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        self.sns.subscribe(
            TopicArn=topic, Protocol="sqs", Endpoint=queue, Attributes={"RawMessageDelivery": str(raw).lower()}
        )

        def take():
            [message] = self.sqs.receive_message(QueueUrl=url, WaitTimeSeconds=20)["Messages"]
            self.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
            return json.loads(message["Body"])

        return topic, take

    def files(self, name):
        """The keys of what came of an endpoint's requests."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=f"{name}/out/")
        return [one["Key"] for page in pages for one in page.get("Contents", [])]


@pytest.fixture
def later(server, bucket, role):
    later = AsyncEndpoints(server, bucket, role)
    names = []
    deploy = later.deploy_async
    later.deploy_async = lambda name, *given, **options: (names.append(name), deploy(name, *given, **options))[1]
    yield later
    for name in names:
        later.delete(name)


def test_answers_failures_and_notices(later, server):
    good, next_good = later.topic("async-good")
    bad, next_bad = later.topic("async-bad", raw=True)
    notices = {
        "SuccessTopic": good,
        "ErrorTopic": bad,
        "IncludeInferenceResponseIn": ["SUCCESS_NOTIFICATION_TOPIC"],
    }
    endpoint = later.deploy_async(
        "async-whole", S3FailurePath=f"s3://{later.bucket}/async-whole/failed", NotificationConfig=notices
    )
    assert endpoint["AsyncInferenceConfig"]["OutputConfig"]["NotificationConfig"] == notices

    asked = later.ask("async-whole", "one", InferenceId="async-one", CustomAttributes="c=1")
    assert asked["ResponseMetadata"]["HTTPStatusCode"] == 202 and asked["InferenceId"] == "async-one"
    answer = later.output(asked)
    assert answer["ContentType"] == "application/json"
    text = answer["Body"].read().decode()
    seen = json.loads(text)
    assert (seen["seen"], seen["type"]) == ("one", "text/plain"), "the type is the object's"
    envelope = next_good()
    assert envelope["Type"] == "Notification" and envelope["TopicArn"] == good
    notice = json.loads(envelope["Message"])
    assert notice["invocationStatus"] == "Completed" and notice["inferenceId"] == "async-one"
    assert notice["responseParameters"]["outputLocation"] == asked["OutputLocation"]
    assert notice["responseParameters"]["responseBody"] == {"content": text, "encoding": "UTF-8"}
    assert notice["requestParameters"]["endpointName"] == "async-whole"
    again = later.runtime.invoke_endpoint_async(
        EndpointName="async-whole",
        InputLocation=notice["requestParameters"]["inputLocation"],
        InferenceId="async-one",
        CustomAttributes="c=1",
    )
    assert again["OutputLocation"] == asked["OutputLocation"], "it is the same request, sent again"

    inline = later.runtime.invoke_endpoint_async(
        EndpointName="async-whole", Body=b"two", ContentType="text/csv", S3OutputPathExtension="inline", Filename="two.json"
    )
    assert inline["OutputLocation"] == f"s3://{later.bucket}/async-whole/out/inline/two.json"
    seen = json.load(later.output(inline)["Body"])
    assert (seen["seen"], seen["type"]) == ("two", "text/csv")

    failure = later.failure(later.ask("async-whole", "fail"))
    assert failure["ErrorCode"] == "ModelError" and failure["OriginalStatusCode"] == 500
    assert "no such row" in failure["OriginalMessage"]
    notice = next_bad()
    assert notice["invocationStatus"] == "Failed" and "no such row" in notice["failureReason"]
    server.wait_for_log("async-whole", "no such row")

    with pytest.raises(later.runtime.exceptions.ClientError, match="async-whole of account [0-9]+ is asynchronous"):
        later.runtime.invoke_endpoint(EndpointName="async-whole", Body=b"one")
    key = server.command("endpoints", "key").strip()
    answered = call(server.endpoint + "/_modelyard/open/v1/models/async-whole:predict", key, {"instances": [1]})
    assert answered[0] == 400 and "answers InvokeEndpointAsync alone" in answered[1]["error"], answered

    missing = later.failure(later.ask("async-whole", None))
    assert missing["ErrorCode"] == "InputError" and "cannot be read" in missing["Message"]

    late = later.ask("async-whole", "sleep 300", InvocationTimeoutSeconds=1)
    failure = later.failure(late)
    assert failure["ErrorCode"] == "InvocationTimeout" and "1 seconds" in failure["Message"]
    # The worker that went on has been ended, and the next request gets its successor.
    assert json.load(later.output(later.ask("async-whole", "three"))["Body"])["worker"] != seen["worker"]

    lost = later.failure(later.ask("async-whole", "die"))
    assert lost["ErrorCode"] == "ModelError" and "lost" in lost["Message"]

    with pytest.raises(botocore.exceptions.ClientError, match="InvokeEndpointAsync") as caught:
        later.invoke("async-whole", b"x")
    assert caught.value.response["Error"]["Code"] == "ValidationError"


def test_requests_wait_for_an_instance_and_survive_updates_and_deletion(later, server):
    later.deploy_async("async-waits")

    def instances(count):
        wanted = [{"VariantName": "AllTraffic", "DesiredInstanceCount": count}]
        later.sagemaker.update_endpoint_weights_and_capacities(
            EndpointName="async-waits", DesiredWeightsAndCapacities=wanted
        )
        variant = lambda: later.sagemaker.describe_endpoint(EndpointName="async-waits")["ProductionVariants"][0]
        poll(lambda: variant()["CurrentInstanceCount"] == count, f"there are {count} instances")
        later.wait("async-waits")

    instances(0)
    asked = [later.ask("async-waits", str(number)) for number in range(5)]
    shown = server.command("endpoints", "queue", "async-waits")
    assert "Waiting:" in shown and asked[4]["InferenceId"] in shown
    queue = json.loads(server.command("endpoints", "queue", "async-waits", "--output", "json"))
    assert (queue["Waiting"], queue["Running"]) == (5, 0)
    assert [one["Position"] for one in queue["Requests"]] == [1, 2, 3, 4, 5]
    assert not later.files("async-waits")
    instances(1)
    seen = [json.load(later.output(one)["Body"])["seen"] for one in asked]
    assert seen == ["0", "1", "2", "3", "4"]

    # An update keeps the line; the new fleet goes on with it.
    slow = [later.ask("async-waits", f"sleep 0.{number + 1}") for number in range(6)]
    later.sagemaker.update_endpoint(EndpointName="async-waits", EndpointConfigName="async-waits")
    assert [json.load(later.output(one)["Body"])["seen"] for one in slow] == [f"sleep 0.{n + 1}" for n in range(6)]
    later.wait("async-waits")

    instances(0)
    left = later.ask("async-waits", "never")
    later.sagemaker.delete_endpoint(EndpointName="async-waits")
    assert later.failure(left)["ErrorCode"] == "EndpointDeleted"
    later.sagemaker.get_waiter("endpoint_deleted").wait(
        EndpointName="async-waits", WaiterConfig={"Delay": 1, "MaxAttempts": 60}
    )
    # The name is free again; the fixture deletes what is there.
    later.sagemaker.create_endpoint(EndpointName="async-waits", EndpointConfigName="async-waits")
    later.wait("async-waits")


def test_an_instance_has_as_many_at_once_as_it_may(later, boto):
    later.deploy_async("async-limits", most_at_once=2, environment={"SAGEMAKER_MODEL_SERVER_WORKERS": "3"})
    asked = [later.ask("async-limits", "sleep 0.3") for _ in range(6)]
    workers = {json.load(later.output(one)["Body"])["worker"] for one in asked}
    assert 1 <= len(workers) <= 3
    cloudwatch = boto("cloudwatch")
    dimensions = [{"Name": "EndpointName", "Value": "async-limits"}]

    def metrics():
        listed = cloudwatch.list_metrics(Namespace="AWS/SageMaker", Dimensions=dimensions)["Metrics"]
        return {metric["MetricName"] for metric in listed}

    wanted = {"ApproximateBacklogSize", "ApproximateBacklogSizePerInstance", "TimeInBacklog", "TotalProcessingTime"}
    poll(lambda: wanted <= metrics(), "the line is measured")


SDK = """
import sagemaker
from sagemaker.async_inference import AsyncInferenceConfig, WaiterConfig
from sagemaker.exceptions import AsyncInferenceModelError
from sagemaker.model import Model
from sagemaker.predictor import Predictor
from sagemaker.deserializers import JSONDeserializer
from sagemaker.serializers import CSVSerializer
import os, sys

image, data, role, bucket = sys.argv[1:]
session = sagemaker.Session(default_bucket=bucket)
model = Model(image_uri=image, model_data=data, role=role, name="async-sdk", sagemaker_session=session, predictor_cls=Predictor)
config = AsyncInferenceConfig(output_path=f"s3://{bucket}/async-sdk/out", max_concurrent_invocations_per_instance=2)
predictor = model.deploy(1, "ml.m5.large", endpoint_name="async-sdk", async_inference_config=config,
                         serializer=CSVSerializer(), deserializer=JSONDeserializer())
quick = WaiterConfig(max_attempts=100, delay=1)
response = predictor.predict_async(data="5,6")
print(response.output_path)
assert response.get_result(quick)["seen"] == "5,6"
assert predictor.predict(data="7", waiter_config=quick)["seen"] == "7"
try:
    predictor.predict_async(data="fail").get_result(quick)
except AsyncInferenceModelError as error:
    assert "no such row" in str(error), error
else:
    raise AssertionError("a failed inference has no result")
predictor.delete_endpoint()
# The SDK leaves threads behind that look for the other file, for as long as its waiters may.
sys.stdout.flush()
os._exit(0)
"""


def test_the_sdk_deploys_predicts_and_waits(later, run_python, tmp_path):
    later.model("async-sdk-data", OBEDIENT)
    model = later.sagemaker.describe_model(ModelName="async-sdk-data")
    (tmp_path / "script.py").write_text(SDK)
    container = model["PrimaryContainer"]
    printed = run_python("script.py", container["Image"], container["ModelDataUrl"], later.role, later.bucket)
    assert f"s3://{later.bucket}/async-sdk/out/" in printed


def ends(later, name, asked):
    """Waits until each request has one object, and says how many are answers."""

    def all_ended():
        there = {f"s3://{later.bucket}/{key}" for key in later.files(name)}
        ended = [(one["OutputLocation"] in there, one["FailureLocation"] in there) for one in asked]
        return ended if all(answer or failure for answer, failure in ended) else None

    ended = poll(all_ended, "every request has ended", 240)
    assert all(answer != failure for answer, failure in ended), "one object each"
    return sum(answer for answer, _ in ended)


def test_killed_servers_end_every_accepted_request_once(tmp_path):
    """The server is killed after each of its steps, and in between at random, while requests come in."""
    server = FaultyServer(tmp_path).start()
    try:
        server.client("s3").create_bucket(Bucket="killed")
        role = server.client("iam").get_role(RoleName="ModelyardExecutionRole")["Role"]["Arn"]
        later = AsyncEndpoints(server, "killed", role)
        topic, take = later.topic("killed")
        workers = {"SAGEMAKER_MODEL_SERVER_WORKERS": "2"}
        later.deploy_async("killed", environment=workers, NotificationConfig={"SuccessTopic": topic, "ErrorTopic": topic})
        accepted, stop = [], threading.Event()

        def send():
            runtime = server.client("sagemaker-runtime")
            while not stop.wait(0.1):
                body = random.choice(["x", "x", "x", "sleep 0.05", "fail"])
                try:
                    asked = runtime.invoke_endpoint_async(
                        EndpointName="killed", Body=body.encode(), ContentType="text/plain"
                    )
                    accepted.append(asked)
                except botocore.exceptions.ClientError as error:
                    assert error.response["Error"]["Code"] in ("ValidationError", "ServiceUnavailable"), error
                except botocore.exceptions.BotoCoreError:
                    pass  # it was not accepted as far as the client knows

        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            senders = [pool.submit(send) for _ in range(2)]
            for point in ["async-stored", "object-row", "database-committed", "async-stored"]:
                server.arm(point, "skip 5 abort")
                poll(server.has_died, f"{point} ends the server")
                server.restart()
            for _ in range(4):
                before = len(accepted)
                poll(lambda: len(accepted) >= before + 10, "requests come in")
                server.kill()
                server.start()
            stop.set()
            for sender in senders:
                sender.result(60)
        later = AsyncEndpoints(server, "killed", role)
        assert len(accepted) >= 40
        answers = ends(later, "killed", accepted)
        assert 0 < answers < len(accepted)
        queue = lambda: json.loads(server.command("endpoints", "queue", "killed", "--output", "json"))
        poll(lambda: queue()["Waiting"] == queue()["Running"] == 0, "the line is empty")
        # Requests whose acceptance no client heard of have ended, too: everything there is has a file, and none has two.
        names = [key.rsplit("/", 1)[1].removesuffix("-error.out").removesuffix(".out") for key in later.files("killed")]
        assert len(names) == len(set(names)) >= len(accepted)
        notices = [json.loads(take()["Message"]) for _ in range(3)]
        assert {notice["eventName"] for notice in notices} == {"InferenceResult"}
    finally:
        stop_all(server)
