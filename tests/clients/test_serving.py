"""Endpoints that really serve: scripts, variants, updates, streams, failures."""

import collections
import json
import os

import pytest

ECHO = """
def model_fn(model_dir): return None
def input_fn(body, content_type): return body
def predict_fn(data, model): return data
def output_fn(prediction, accept): return prediction, accept
"""

NAMED = """
def model_fn(model_dir): return {name!r}
def predict_fn(data, model): return {{"model": model, "data": data}}
"""


def test_bytes_pass_untouched(deploy_script, endpoints):
    deploy_script("echo", ECHO)
    body = os.urandom(300_000)
    answer = endpoints.invoke("echo", body, ContentType="application/octet-stream", Accept="application/x-own")
    assert answer["Body"].read() == body
    assert answer["ContentType"] == "application/x-own"
    assert answer["InvokedProductionVariant"] == "echo"


def test_custom_attributes_and_errors(deploy_script, endpoints, server):
    deploy_script(
        "attributes",
        """
        def model_fn(model_dir): return None
        def input_fn(body, content_type): return body
        def predict_fn(data, model, context):
            if data == b"fail": raise ValueError("no such row")
            context.set_response_header(0, "X-Amzn-SageMaker-Custom-Attributes", "seen=" + str(len(data)))
            return {"ok": True}
        """,
    )
    answer = endpoints.invoke("attributes", b"abc", ContentType="application/x-own", CustomAttributes="c=1")
    assert json.load(answer["Body"]) == {"ok": True} and answer["CustomAttributes"] == "seen=3"
    with pytest.raises(endpoints.runtime.exceptions.ModelError) as caught:
        endpoints.invoke("attributes", b"fail", ContentType="application/x-own")
    assert caught.value.response["OriginalStatusCode"] == 500
    assert "no such row" in caught.value.response["Error"]["Message"]
    server.wait_for_log("attributes", "ValueError: no such row")


def test_missing_endpoints(endpoints):
    with pytest.raises(endpoints.runtime.exceptions.ClientError, match="not found") as caught:
        endpoints.invoke("none", b"x")
    assert caught.value.response["Error"]["Code"] == "ValidationError"


def test_variants_share_the_traffic_and_can_be_targeted(endpoints):
    for name in ("heavy", "light"):
        endpoints.model(name, NAMED.format(name=name))
    endpoints.config("shared", heavy=3.0, light=1.0)
    endpoints.sagemaker.create_endpoint(EndpointName="shared", EndpointConfigName="shared")
    assert endpoints.wait("shared")["EndpointStatus"] == "InService"
    seen = collections.Counter(endpoints.invoke("shared", b"1")["InvokedProductionVariant"] for _ in range(200))
    assert 110 <= seen["heavy"] <= 185, seen
    targeted = endpoints.invoke("shared", b"1", TargetVariant="light")
    assert json.load(targeted["Body"]) == {"model": "light", "data": 1}
    with pytest.raises(endpoints.runtime.exceptions.ClientError, match="Variant none was not found"):
        endpoints.invoke("shared", b"1", TargetVariant="none")
    endpoints.sagemaker.update_endpoint_weights_and_capacities(
        EndpointName="shared", DesiredWeightsAndCapacities=[{"VariantName": "light", "DesiredWeight": 0.0}]
    )
    endpoints.wait("shared")
    seen = {endpoints.invoke("shared", b"1")["InvokedProductionVariant"] for _ in range(40)}
    assert seen == {"heavy"}
    endpoints.delete("shared")
    waiter = endpoints.sagemaker.get_waiter("endpoint_deleted")
    waiter.wait(EndpointName="shared", WaiterConfig={"Delay": 1, "MaxAttempts": 60})


def test_update_replaces_the_model(endpoints):
    assert endpoints.deploy("before", NAMED.format(name="before"))["EndpointStatus"] == "InService"
    endpoints.model("after", NAMED.format(name="after"))
    endpoints.config("after", after=1.0)
    endpoints.sagemaker.update_endpoint(EndpointName="before", EndpointConfigName="after")
    endpoints.wait("before")
    assert json.load(endpoints.invoke("before", b"1")["Body"])["model"] == "after"
    assert endpoints.sagemaker.describe_endpoint(EndpointName="before")["EndpointConfigName"] == "after"
    endpoints.delete("before")


def test_a_stream_arrives_in_parts(deploy_script, endpoints):
    deploy_script(
        "stream",
        """
        def model_fn(model_dir): return None
        def transform_fn(model, body, content_type, accept):
            def parts():
                for part in ("one ", "two ", "three"):
                    yield part.encode()
            return parts(), "text/plain"
        """,
    )
    answer = endpoints.runtime.invoke_endpoint_with_response_stream(EndpointName="stream", Body=b"x")
    parts = [event["PayloadPart"]["Bytes"] for event in answer["Body"]]
    assert b"".join(parts) == b"one two three" and len(parts) == 3
    assert answer["ContentType"] == "text/plain"


def test_a_model_that_cannot_load_fails_the_endpoint(endpoints):
    endpoint = endpoints.deploy("broken", "def model_fn(model_dir): raise RuntimeError('weights are missing')\n")
    assert endpoint["EndpointStatus"] == "Failed"
    assert "weights are missing" in endpoint["FailureReason"]
    endpoints.delete("broken")


def test_a_dead_worker_is_replaced(deploy_script, endpoints):
    deploy_script(
        "dying",
        """
        import os
        def model_fn(model_dir): return None
        def predict_fn(data, model):
            if data == "die": os._exit(1)
            return {"pid": os.getpid()}
        """,
    )
    with pytest.raises(endpoints.runtime.exceptions.ModelError):
        endpoints.invoke("dying", b'"die"')
    assert json.load(endpoints.invoke("dying", b"1")["Body"])["pid"] > 0


def test_hostile_model_archives_are_refused(endpoints):
    endpoint = endpoints.deploy("hostile-model", "", extra_files={"../escape.txt": "canary"})
    assert endpoint["EndpointStatus"] == "Failed" and "escape.txt" in endpoint["FailureReason"]
    endpoints.delete("hostile-model")


def test_commands(deploy_script, server):
    deploy_script("commanded", ECHO)
    assert "commanded" in server.command("endpoints")
    assert "InService" in server.command("endpoints", "show", "commanded")
    assert json.loads(server.command("models", "list", "--output", "json"))
    assert "Image:" in server.command("models", "show", "commanded")
