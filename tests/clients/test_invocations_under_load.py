"""Invocations from many clients at once: while an endpoint is updated, while the server is killed, and past all limits."""

import concurrent.futures
import contextlib
import json
import socket
import threading
import time

import pytest
from botocore.exceptions import ClientError
from conftest import Endpoints, UnderLoad, poll

# What is loaded once in a replica is the same in all its workers, and in no other replica.
VERSION = """
import uuid
def model_fn(model_dir): return {{"version": {version!r}, "loaded": uuid.uuid4().hex}}
def predict_fn(data, model): return model
"""


class Callers(UnderLoad):
    """Clients that invoke an endpoint one request after another until they are told to end."""

    def __init__(self, make_runtime, endpoint, count=6):
        self.answers, self.errors = [], []
        self.over = threading.Event()
        self.threads = [threading.Thread(target=self.call, args=(make_runtime(), endpoint)) for _ in range(count)]

    def call(self, runtime, endpoint):
        while not self.over.is_set():
            try:
                answer = runtime.invoke_endpoint(EndpointName=endpoint, Body=b"1", ContentType="application/json")
                self.answers.append(json.load(answer["Body"]))
            except Exception as error:
                self.errors.append(error)


def test_an_update_under_load_drops_no_request(endpoints, server):
    name = "load-update"
    assert endpoints.deploy(name, VERSION.format(version="old"))["EndpointStatus"] == "InService"
    endpoints.model("load-update-new", VERSION.format(version="new"))
    endpoints.config("load-update-new", **{"load-update-new": 1.0})
    with Callers(lambda: server.client("sagemaker-runtime"), name) as callers:
        poll(lambda: len(callers.answers) > 20, "the old fleet is under load")
        endpoints.sagemaker.update_endpoint(EndpointName=name, EndpointConfigName="load-update-new")
        endpoints.wait(name)
        updated = len(callers.answers)
        poll(lambda: len(callers.answers) > updated + 50, "the new fleet is under load")
    assert callers.errors == []
    versions = [answer["version"] for answer in callers.answers]
    assert versions[0] == "old" and set(versions[-20:]) == {"new"}
    endpoints.delete(name)


def test_workers_are_as_many_as_cpus_and_share_one_model(endpoints):
    name = "load-workers"
    # Each of two requests ends only when the other is there, too.
    script = """
    import os, uuid
    def model_fn(model_dir):
        os.mkfifo("/tmp/meeting")
        return uuid.uuid4().hex
    def predict_fn(data, model):
        with open("/tmp/meeting", str(data)): return {"loaded": model, "pid": os.getpid()}
    """
    assert endpoints.deploy(name, script)["EndpointStatus"] == "InService"
    with concurrent.futures.ThreadPoolExecutor() as pool:
        met = [json.load(answer["Body"]) for answer in pool.map(lambda mode: endpoints.invoke(name, mode), [b'"r"', b'"w"'])]
    assert len({answer["pid"] for answer in met}) == 2
    assert len({answer["loaded"] for answer in met}) == 1, "each worker loaded the model for itself"
    endpoints.delete(name)


def test_routing_is_chosen_and_shown(endpoints):
    name = "load-routing"
    endpoints.model(name, VERSION.format(version="one"))
    variant = {
        "VariantName": "v", "ModelName": name, "InitialInstanceCount": 2, "InstanceType": "ml.m5.large",
        "RoutingConfig": {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"}, "ModelDataDownloadTimeoutInSeconds": 300,
    }
    endpoints.sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    described = endpoints.sagemaker.describe_endpoint_config(EndpointConfigName=name)["ProductionVariants"][0]
    assert described["RoutingConfig"] == {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"}
    endpoints.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    assert endpoints.wait(name)["EndpointStatus"] == "InService"
    shown = endpoints.sagemaker.describe_endpoint(EndpointName=name)["ProductionVariants"][0]
    assert shown["RoutingConfig"] == {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"}
    replicas = {json.load(endpoints.invoke(name, b"1")["Body"])["loaded"] for _ in range(40)}
    assert len(replicas) == 2, "equal replicas take turns"
    endpoints.delete(name)
    for strategy in ("PREFIX_AWARE", "KV_AWARE"):
        variant["RoutingConfig"] = {"RoutingStrategy": strategy}
        with pytest.raises(endpoints.sagemaker.exceptions.ClientError, match=strategy):
            endpoints.sagemaker.create_endpoint_config(EndpointConfigName="load-other", ProductionVariants=[variant])


def test_a_killed_server_serves_again_with_the_same_replicas(own_server):
    name = "load-kill"
    role = own_server.client("iam").get_role(RoleName="ModelyardExecutionRole")["Role"]["Arn"]
    own_server.client("s3").create_bucket(Bucket="load-kill-bucket")
    endpoints = Endpoints(own_server, "load-kill-bucket", role)
    assert endpoints.deploy(name, VERSION.format(version="one"))["EndpointStatus"] == "InService"
    before = json.load(endpoints.invoke(name, b"1")["Body"])
    with Callers(lambda: own_server.client("sagemaker-runtime"), name, count=3) as callers:
        poll(lambda: len(callers.answers) > 20, "the endpoint is under load")
        own_server.kill()
        started = time.monotonic()
        own_server.start()
        runtime = own_server.client("sagemaker-runtime")
        after = json.load(runtime.invoke_endpoint(EndpointName=name, Body=b"1", ContentType="application/json")["Body"])
        back = time.monotonic() - started
        answered = len(callers.answers)
        poll(lambda: len(callers.answers) > answered + 20, "the clients are answered again")
    assert after["loaded"] == before["loaded"], "the replica was started anew"
    assert back < 10, f"{back:.1f} s until the first answer"
    # Connections broke; no request was answered with an error of the server.
    assert not [error for error in callers.errors if isinstance(error, ClientError)], callers.errors
    assert endpoints.wait(name)["EndpointStatus"] == "InService"


@contextlib.contextmanager
def connected(server):
    host, port = server.listen().split(":")
    with socket.create_connection((host, int(port)), timeout=20) as stream:
        yield stream


def signed(server, endpoint, body):
    """The head of an invocation as a client would send it, without its length."""
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    connection = server.connection
    request = AWSRequest("POST", f"{server.endpoint}/endpoints/{endpoint}/invocations", data=body)
    request.headers["Content-Type"] = "application/octet-stream"
    credentials = Credentials(connection["access_key_id"], connection["secret_access_key"])
    SigV4Auth(credentials, "sagemaker", "us-east-1").add_auth(request)
    lines = [f"POST /endpoints/{endpoint}/invocations HTTP/1.1", f"Host: {server.listen()}"]
    lines += [f"{name}: {value}" for name, value in request.headers.items() if name != "Content-Length"]
    return "\r\n".join(lines) + "\r\n"


def answer(stream):
    """All that comes back until the connection ends or an answer is whole."""
    received = b""
    while b"\r\n\r\n" not in received:
        part = stream.recv(65536)
        if not part:
            break
        received += part
    return received.decode(errors="replace")


def test_bodies_past_the_limit_are_refused_before_they_are_sent(server):
    with connected(server) as stream:
        head = signed(server, "load-none", b"") + f"Expect: 100-continue\r\nContent-Length: {26 * 1024 * 1024}\r\n\r\n"
        stream.sendall(head.encode())
        assert "413" in answer(stream).split("\r\n")[0]


def test_bodies_without_a_length_are_read_up_to_the_limit(server):
    with connected(server) as stream:
        stream.sendall((signed(server, "load-none", b"") + "Transfer-Encoding: chunked\r\n\r\n").encode())
        piece = b"100000\r\n" + bytes(0x100000) + b"\r\n"
        sent = 0
        with contextlib.suppress(OSError):
            for _ in range(40):
                stream.sendall(piece)
                sent += 1
        with contextlib.suppress(OSError):
            assert "413" in answer(stream).split("\r\n")[0]
        assert sent < 40, "the server read on past its limit"


def test_a_client_that_closes_its_half_early_is_no_burden(server, endpoints):
    with connected(server) as stream:
        stream.sendall((signed(server, "load-none", b"12345") + "Content-Length: 5\r\n\r\n12").encode())
        stream.shutdown(socket.SHUT_WR)
        assert " 200 " not in answer(stream).split("\r\n")[0]
    assert endpoints.sagemaker.list_endpoints(NameContains="load-none")["Endpoints"] == []
