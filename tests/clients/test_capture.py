"""Data capture: the files that the service would leave, nothing lost on a stop, a kill that says what it took, and replay."""

import json
import os
import re
import signal
import subprocess
import time
import urllib.request

import pytest

from conftest import BINARY, Endpoints, poll
from faults import NOT_ANSWERED, FaultyServer

ECHO = """
def model_fn(model_dir): return None
def input_fn(body, content_type): return body
def predict_fn(data, model):
    if data == b"fail": raise ValueError("no such row")
    return data
def output_fn(prediction, accept): return prediction, accept
"""

SUM = """
import json
def model_fn(model_dir): return None
def input_fn(body, content_type): return json.loads(body)
def predict_fn(data, model): return {{"sum": sum(data) + {add}, "count": len(data)}}
def output_fn(prediction, accept): return json.dumps(prediction), "application/json"
"""

FILE = re.compile(r"/(\d{4})/(\d\d)/(\d\d)/(\d\d)/\d\d-\d\d-\d{3}-[0-9a-f-]{36}\.jsonl$")


def capture_config(bucket, prefix, **more):
    return {
        "EnableCapture": True,
        "InitialSamplingPercentage": 100,
        "DestinationS3Uri": f"s3://{bucket}/{prefix}",
        "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
        "CaptureContentTypeHeader": {"CsvContentTypes": ["text/csv"], "JsonContentTypes": ["application/json"]},
        **more,
    }


def configure(endpoints, config, model, capture):
    variant = {"VariantName": "AllTraffic", "ModelName": model, "InitialInstanceCount": 1, "InstanceType": "ml.m5.large"}
    endpoints.sagemaker.create_endpoint_config(
        EndpointConfigName=config, ProductionVariants=[variant], **({"DataCaptureConfig": capture} if capture else {})
    )


def deploy(endpoints, name, script, capture):
    endpoints.model(name, script)
    configure(endpoints, name, name, capture)
    endpoints.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    endpoint = endpoints.wait(name)
    assert endpoint["EndpointStatus"] == "InService", endpoint.get("FailureReason")
    return endpoint


def keys(endpoints, prefix):
    pages = endpoints.s3.get_paginator("list_objects_v2").paginate(Bucket=endpoints.bucket, Prefix=prefix)
    return [entry["Key"] for page in pages for entry in page.get("Contents", [])]


def captured(endpoints, prefix):
    bodies = [endpoints.s3.get_object(Bucket=endpoints.bucket, Key=key)["Body"].read() for key in keys(endpoints, prefix)]
    return [json.loads(line) for body in bodies for line in body.splitlines()]


def wait_for(endpoints, prefix, count):
    poll(lambda: len(captured(endpoints, prefix)) >= count, f"{count} invocations are captured", 30)
    lines = captured(endpoints, prefix)
    assert len(lines) == count, lines
    return lines


def metric(server, endpoint, outcome):
    text = urllib.request.urlopen(f"{server.endpoint}/_modelyard/metrics").read().decode()
    for line in text.splitlines():
        if line.startswith("modelyard_capture_invocations_total{") and f'/{endpoint}"' in line and f'outcome="{outcome}"' in line:
            return int(float(line.split()[-1]))
    return 0


def test_files_are_as_the_service_writes_them(endpoints, server):
    name = "capture-files"
    key = server.client("kms").create_key()["KeyMetadata"]["KeyId"]
    endpoint = deploy(endpoints, name, ECHO, capture_config(endpoints.bucket, "captured/one", KmsKeyId=key))
    assert endpoint["DataCaptureConfig"] == {
        "EnableCapture": True,
        "CaptureStatus": "Started",
        "CurrentSamplingPercentage": 100,
        "DestinationS3Uri": f"s3://{endpoints.bucket}/captured/one",
        "KmsKeyId": key,
    }
    csv = endpoints.invoke(name, b"1,2\n", ContentType="text/csv; charset=utf-8", Accept="text/csv", InferenceId="mine")
    endpoints.invoke(name, b'{"a":\n1}', Accept="application/json", CustomAttributes="trace=1")
    endpoints.invoke(name, b"\xff\x00", ContentType="application/x-own", Accept="application/x-own")
    with pytest.raises(endpoints.runtime.exceptions.ModelError):
        endpoints.invoke(name, b"fail", ContentType="application/x-own")
    lines = wait_for(endpoints, f"captured/one/{name}/AllTraffic/", 3)
    assert lines[0]["captureData"] == {
        "endpointInput": {"observedContentType": "text/csv; charset=utf-8", "mode": "INPUT", "data": "1,2\n", "encoding": "CSV"},
        "endpointOutput": {"observedContentType": "text/csv", "mode": "OUTPUT", "data": "1,2\n", "encoding": "CSV"},
    }
    metadata = lines[0]["eventMetadata"]
    assert metadata["eventId"] == csv["ResponseMetadata"]["RequestId"] and metadata["inferenceId"] == "mine"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", metadata["inferenceTime"]) and "customAttributes" not in metadata
    assert lines[0]["eventVersion"] == "0"
    assert lines[1]["captureData"]["endpointInput"]["encoding"] == "JSON"
    assert lines[1]["eventMetadata"]["customAttributes"] == ["trace=1"]
    assert lines[2]["captureData"]["endpointOutput"]["data"] == "/wA=" and lines[2]["captureData"]["endpointOutput"]["encoding"] == "BASE64"
    [first, *_] = keys(endpoints, f"captured/one/{name}/AllTraffic/")
    assert FILE.search(first) and first.startswith(f"captured/one/{name}/AllTraffic/2")
    head = endpoints.s3.head_object(Bucket=endpoints.bucket, Key=first)
    assert head["ServerSideEncryption"] == "aws:kms" and head["SSEKMSKeyId"].endswith(key)

    # An update that retains everything captures as before; one that does not, as the new configuration says.
    configure(endpoints, f"{name}-off", name, capture_config(endpoints.bucket, "captured/two", EnableCapture=False))
    update = {"EndpointName": name, "EndpointConfigName": f"{name}-off", "RetainAllVariantProperties": True}
    endpoints.sagemaker.update_endpoint(**update)
    assert endpoints.wait(name)["DataCaptureConfig"]["CaptureStatus"] == "Started"
    endpoints.invoke(name, b"1")
    wait_for(endpoints, f"captured/one/{name}/", 4)
    endpoints.sagemaker.update_endpoint(
        **update, ExcludeRetainedVariantProperties=[{"VariantPropertyType": "DataCaptureConfig"}]
    )
    summary = endpoints.wait(name)["DataCaptureConfig"]
    assert (summary["EnableCapture"], summary["CaptureStatus"]) == (False, "Stopped")
    endpoints.invoke(name, b"1")
    endpoints.delete(name)
    endpoints.sagemaker.get_waiter("endpoint_deleted").wait(EndpointName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 60})
    assert len(keys(endpoints, "captured/two/")) == 0 and metric(server, name, "captured") == 4


def test_the_sdk_turns_it_on_and_off(endpoints, run_python, tmp_path):
    name = "capture-sdk"
    endpoints.model(name, ECHO)
    script = tmp_path / "by_sdk.py"
    script.write_text(
        f"""
import boto3, sagemaker
from sagemaker.model import Model
from sagemaker.model_monitor import DataCaptureConfig
from sagemaker.predictor import Predictor
from sagemaker.serializers import CSVSerializer

session = sagemaker.Session()
described = boto3.client("sagemaker").describe_model(ModelName={name!r})
container = described["PrimaryContainer"]
model = Model(
    image_uri=container["Image"], model_data=container["ModelDataUrl"], role=described["ExecutionRoleArn"],
    predictor_cls=Predictor, sagemaker_session=session, name="capture-sdk-model",
)
destination = "s3://{endpoints.bucket}/captured/sdk"
config = DataCaptureConfig(enable_capture=True, sampling_percentage=100, destination_s3_uri=destination, sagemaker_session=session)
predictor = model.deploy(1, "ml.m5.large", endpoint_name={name!r}, data_capture_config=config, serializer=CSVSerializer())
predictor.predict([1, 2])
predictor.disable_data_capture()
predictor.predict([3, 4])
only_input = DataCaptureConfig(True, 100, destination, capture_options=["REQUEST"], sagemaker_session=session)
predictor.update_data_capture_config(only_input)
predictor.predict([5, 6])
predictor.delete_endpoint()
"""
    )
    run_python(script)
    lines = wait_for(endpoints, f"captured/sdk/{name}/", 2)
    assert [line["captureData"]["endpointInput"]["data"] for line in lines] == ["1,2", "5,6"]
    assert ["endpointOutput" in line["captureData"] for line in lines] == [True, False]


@pytest.fixture
def own_endpoints(own_server):
    role = own_server.client("iam").get_role(RoleName="ModelyardExecutionRole")["Role"]["Arn"]
    own_server.client("s3").create_bucket(Bucket="captures")
    return lambda: Endpoints(own_server, "captures", role)


def test_a_clean_stop_loses_nothing_and_a_kill_says_what_it_took(own_server, own_endpoints):
    endpoints = own_endpoints()
    deploy(endpoints, "steady", ECHO, capture_config("captures", "data"))
    for number in range(40):
        endpoints.invoke("steady", b"%d" % number)
    own_server.stop()
    own_server.start()
    endpoints = own_endpoints()
    assert len(captured(endpoints, "data/steady/")) == 40, "a stop stores everything before it ends"
    endpoints.wait("steady")
    poll(lambda: answers(endpoints), "the endpoint answers again", 30)
    answered_at = []
    while len(answered_at) < 100 or answered_at[-1] - answered_at[0] < 2:
        endpoints.invoke("steady", b"x")
        answered_at.append(time.monotonic())
    own_server.kill()
    in_all, last_second = 41 + len(answered_at), sum(at > answered_at[-1] - 1 for at in answered_at)
    own_server.start()
    endpoints = own_endpoints()

    def accounted():
        lost = metric(own_server, "steady", "lost")
        return lost + len(captured(endpoints, "data/steady/")) >= in_all and lost + 1

    lost = poll(accounted, "what was captured is stored, or told as lost", 30) - 1
    assert lost + len(captured(endpoints, "data/steady/")) == in_all
    assert lost <= last_second
    if lost:
        assert f"lost={lost}" in own_server.log.read_text()


def answers(endpoints):
    try:
        return endpoints.invoke("steady", b"again")
    except (endpoints.runtime.exceptions.ClientError, *NOT_ANSWERED):
        return None


def test_killed_at_each_write_of_captured_data(tmp_path):
    server = FaultyServer(tmp_path).start()
    try:
        server.client("s3").create_bucket(Bucket="captures")
        role = server.client("iam").get_role(RoleName="ModelyardExecutionRole")["Role"]["Arn"]
        sent = 0
        deploy(Endpoints(server, "captures", role), "steady", ECHO, capture_config("captures", "data"))
        lost = 0

        def accounted(endpoints):
            return lost + metric(server, "steady", "lost") + len(captured(endpoints, "data/steady/")) >= sent

        for point in ("capture-write", "capture-sync", "capture-stored", "capture-begin"):
            endpoints = Endpoints(server, "captures", role)
            poll(lambda: answers(endpoints), "the endpoint answers", 30)
            sent += 1
            if point == "capture-begin":
                poll(lambda: accounted(endpoints), "what was captured is stored", 30)
            # What a process tells of its predecessor ends with it.
            lost += metric(server, "steady", "lost")
            if point == "capture-begin":
                # The next start of the server makes a new spool.
                server.kill()
                server.arm(point)
                server.start_until_it_dies()
            else:
                server.arm(point)
                for number in range(5):
                    if not answers(endpoints):
                        break
                    sent += 1
                poll(server.has_died, f"{point} ends the server", 30)
            assert server.was_hit(point)
            server.restart()
            endpoints = Endpoints(server, "captures", role)
            poll(lambda: accounted(endpoints), f"all {sent} are accounted for after {point}", 30)
        lost += metric(server, "steady", "lost")
        # An invocation whose answer was cut off may have been captured, too.
        stored = len(captured(Endpoints(server, "captures", role), "data/steady/"))
        assert sent <= lost + stored <= sent + 4
        ids = [line["eventMetadata"]["eventId"] for line in captured(Endpoints(server, "captures", role), "data/steady/")]
        assert len(ids) == len(set(ids)), "nothing is there twice"
        Endpoints(server, "captures", role).delete("steady")
        poll(lambda: not list((server.data_dir / "captures").iterdir()), "no spool is left", 30)
        poll(lambda: not server.client("sagemaker").list_endpoints()["Endpoints"], "the endpoint is gone")
    finally:
        if not server.has_died():
            server.kill()
        for pid, _ in server.processes():
            os.kill(pid, signal.SIGKILL)


def test_replay_compares_a_candidate(endpoints, server):
    capture = capture_config(endpoints.bucket, "captured/replay")
    deploy(endpoints, "replay-users", SUM.format(add="0"), capture)
    deploy(endpoints, "replay-other", SUM.format(add="(0.5 if data[0] == 7 else 1e-9)"), None)
    for number in range(20):
        endpoints.invoke("replay-users", json.dumps([number, 1]).encode())
    wait_for(endpoints, "captured/replay/replay-users/", 20)

    def replay(*words):
        done = subprocess.run(
            [BINARY, "endpoints", "replay", "replay-users", "--data-dir", server.data_dir, *words],
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    code, output, _ = replay("--against", "replay-other", "--output", "json")
    report = json.loads(output)
    assert code == 1
    assert (report["Requests"], report["Equal"], report["Different"], report["Failed"]) == (20, 19, 1, 0)
    [finding] = report["Findings"]
    assert finding["Text"] == "$.sum: was 8 and is 8.5" and finding["Relative"] == pytest.approx(0.5 / 8.5)
    users, candidate = report["Latencies"]
    assert users["P50Milliseconds"] > 0 and candidate["P99Milliseconds"] >= candidate["P50Milliseconds"] > 0
    code, output, _ = replay("--against", "replay-other", "--allow-percent", "5")
    assert code == 0 and "was 8 and is 8.5" in output and "LATENCY OF" in output
    assert replay("--against", "replay-other", "--tolerance", "0.1")[0] == 0
    code, output, _ = replay("--against", "replay-other", "--since", "1h", "--limit", "3", "--output", "json")
    assert (code, json.loads(output)["Requests"]) == (0, 3)
    # Nothing of it was asked of the users' endpoint.
    assert metric(server, "replay-users", "captured") == 20

    # A model gets an endpoint of its own, which goes again.
    code, output, error = replay("--against", "replay-users", "--output", "json")
    assert code == 1 and "is the endpoint whose traffic is replayed" in error
    endpoints.model("replay-model", SUM.format(add="0"))
    code, output, error = replay("--against", "replay-model")
    assert code == 0, output + error
    names = [endpoint["EndpointName"] for endpoint in endpoints.sagemaker.list_endpoints(NameContains="replay-replay-model")["Endpoints"]
             if endpoint["EndpointStatus"] != "Deleting"]  # fmt: skip
    assert not names
    code, _, error = replay("--against", "replay-none")
    assert code == 1 and "there is no endpoint and no model replay-none" in error
    for name in ("replay-users", "replay-other"):
        endpoints.delete(name)
