"""Inference components: several models share the instances of an endpoint, and survive a restart."""

import json
import os
import subprocess
import sys

import pytest
from botocore.exceptions import ClientError
from component_scenes import NO_CAPACITY, SCRIPT, Scaling, Scene, metric, scene, shared  # noqa: F401 (fixtures)
from conftest import PYTORCH_INFERENCE, archive, poll
from open_tools import CHAT, ask, call, host


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
    scene.create("component-chat", script=CHAT)
    for address in (base, below):
        seen = ask("open_ai", address, key, "component-chat")
        assert seen["whole"] == "hello open world" and seen["pieces"] == ["hello", "open", "world"], address
    assert call(f"{base}/v1/models/component-spoken", key)[1]["ready"] == "True"
    assert call(f"{base}/v1/models/component-silent", key)[1]["ready"] == "False"
    status, refused = call(f"{base}/v1/models/component-silent:predict", key, rows)
    assert status == 503 and refused["error"].startswith(NO_CAPACITY)
    assert call(f"{below}/v1/models", key)[1]["models"] == ["component-chat", "component-silent", "component-spoken"]
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
