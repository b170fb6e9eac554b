"""The open inference protocols, with the clients that speak them, on endpoints that serve scripts."""

import json

import pytest

from conftest import Endpoints, archive, stop_all
from open_tools import CHAT, OpenServer, ask, call, host

# Takes JSON only, and says so: what comes in another form is sent again as JSON.
DOUBLING = """
import json

def model_fn(model_dir): return 2
def input_fn(body, content_type):
    if content_type != "application/json":
        from sagemaker_inference.errors import UnsupportedFormatError
        raise UnsupportedFormatError(content_type)
    return json.loads(body)["instances"]
def predict_fn(data, model):
    def doubled(value): return [doubled(one) for one in value] if isinstance(value, list) else 2 * value
    return {"doubled": doubled(data)}
"""

TEXTS = """
import json

def model_fn(model_dir): return None
def input_fn(body, content_type): return json.loads(body)["inputs"]
def predict_fn(data, model): return [word.upper() for word in data]
"""

# The archives of one endpoint, by what each of its models does.
MANY = {"doubling.tar.gz": DOUBLING, "folder/tripling.tar.gz": DOUBLING.replace("2 * value", "3 * value"), "chat.tgz": CHAT}

SCRIPTS = {"open-doubling": DOUBLING, "open-texts": TEXTS, "open-chat": CHAT}


@pytest.fixture(scope="module")
def open_server(tmp_path_factory):
    """A server with an address for these protocols, and one endpoint for each kind of script."""
    server = OpenServer(tmp_path_factory.mktemp("open") / "data").start()
    bucket = "sagemaker-us-east-1-" + server.connection["account"]
    server.client("s3").create_bucket(Bucket=bucket)
    role = server.client("iam").get_role(RoleName="ModelyardExecutionRole")["Role"]["Arn"]
    endpoints = Endpoints(server, bucket, role)
    for name, script in SCRIPTS.items():
        endpoints.model(name, script)
        endpoints.config(name, **{name: 1.0})
        endpoints.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    for name, script in MANY.items():
        endpoints.s3.put_object(Bucket=bucket, Key="many/" + name, Body=archive({"code/inference.py": script}))
    endpoints.model("several", DOUBLING, Mode="MultiModel", ModelDataUrl=f"s3://{bucket}/many/")
    endpoints.config("several", several=1.0)
    endpoints.sagemaker.create_endpoint(EndpointName="several", EndpointConfigName="several")
    for name in [*SCRIPTS, "several"]:
        assert endpoints.wait(name)["EndpointStatus"] == "InService"
    yield server
    stop_all(server)


@pytest.fixture(scope="module")
def key(open_server):
    return open_server.command("endpoints", "key").strip()


@pytest.mark.parametrize("client", ["triton_http", "triton_grpc"])
def test_the_client_of_triton(open_server, key, client):
    seen = ask(client, host(open_server.open_address), key)
    assert seen["json"] == seen["binary"] == [[2.0, 4.0], [6.0, 9.0]]
    assert seen["live"] and seen["ready"] and seen["server"] == "modelyard"
    assert seen["model"]["name"] == "open-doubling" and seen["model"]["versions"] == ["open-doubling"]
    assert seen["texts"] == ["Ä", "B"]
    (none, no_version, no_output) = seen["failures"]
    assert "There is no model open-none" in none[1] and "has no version none" in no_version[1]
    assert "has no output" in no_output[1] and "doubled" in no_output[1]
    if client == "triton_http":
        assert "401" in seen["without key"]
    else:
        assert [none[0], no_output[0]] == ["StatusCode.NOT_FOUND", "StatusCode.INVALID_ARGUMENT"]
        assert seen["without key"] == "StatusCode.UNAUTHENTICATED"
        assert seen["unknown"] == "StatusCode.UNIMPLEMENTED"


@pytest.mark.parametrize("is_below_prefix", [False, True])
def test_predict(open_server, key, is_below_prefix):
    """KServe's V1, by its documented calls: its own client would bring a hundred packages along."""
    base = open_server.endpoint + "/_modelyard/open" if is_below_prefix else open_server.open_address
    model = base + "/v1/models/open-doubling"
    assert call(model + ":predict", key, {"instances": [[1, 2]]}) == (200, {"doubled": [[2, 4]]})
    assert call(base + "/v1/models/open-texts:predict", key, {"inputs": ["a"]}) == (200, {"predictions": ["A"]})
    status, described = call(model, key)
    assert status == 200 and (described["name"], described["ready"]) == ("open-doubling", "True")
    listed = call(base + "/v1/models", key)[1]["models"]
    assert [name for name in listed if name.startswith("open-")] == sorted(SCRIPTS)
    explained = call(model + ":explain", key, {"instances": [[1, 2]]})
    assert explained == (400, {"error": "Explanations are not done yet; use :predict."})
    assert call(model + ":predict", key, {})[0] == 400
    status, refused = call(model + ":predict", key, {"instances": [None]})
    assert status == 500 and "TypeError" in refused["error"]


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_the_client_of_triton_names_one_of_many_models(open_server, key, protocol):
    seen = ask("triton_many", protocol, host(open_server.open_address), key)
    assert seen["answers"] == {
        "several/doubling": [[2.0, 4.0], "several/doubling", "several"],
        "several/doubling.tar.gz": [[2.0, 4.0], "several/doubling.tar.gz", "several"],
        "several/folder/tripling": [[3.0, 6.0], "several/folder/tripling", "several"],
    }
    assert seen["ready"] is True and seen["model"]["name"] == "several/folder/tripling"
    absent, unnamed, one_only, outside = seen["refused"]
    assert "many/none.tar.gz" in absent[1] and "call the one that is meant several/MODEL" in unnamed[1]
    assert "the endpoint's model is called open-doubling" in one_only[1] and "leads out of the prefix" in outside[1]
    codes = {"http": ["404", "400", "404", "404"], "grpc": ["NOT_FOUND", "INVALID_ARGUMENT", "NOT_FOUND", "NOT_FOUND"]}
    assert [code.removeprefix("StatusCode.") for code, _ in seen["refused"]] == codes[protocol]
    assert "many/none.tar.gz" in seen["no metadata"]


def test_predict_names_one_of_many_models(open_server, key):
    wanted = {"instances": [[1, 2]]}
    models = open_server.open_address + "/v1/models/"
    for name in ("several/folder/tripling", "several/folder/tripling.tar.gz", "several%2Ffolder%2Ftripling"):
        assert call(f"{models}{name}:predict", key, wanted) == (200, {"doubled": [[3, 6]]}), name
    scoped = open_server.open_address + "/endpoints/several/v1/models/"
    for name in ("doubling", "doubling.tar.gz", "folder/tripling", "folder%2Ftripling.tar.gz"):
        assert call(f"{scoped}{name}:predict", key, wanted)[0] == 200, name
    status, described = call(models + "several/doubling", key)
    assert status == 200 and (described["name"], described["ready"]) == ("several/doubling", "True")
    for name in ("several/none", "open-doubling/doubling"):
        assert call(models + name, key)[0] == call(f"{models}{name}:predict", key, wanted)[0] == 404, name
    assert call(scoped + "none", key)[0] == 404
    chat = {"model": "several/chat.tgz", "messages": [{"role": "user", "content": "hello"}]}
    status, said = call(open_server.open_address + "/v1/chat/completions", key, chat)
    assert status == 200 and said["choices"][0]["message"]["content"] == "hello"


def test_readiness_of_a_version_below_an_endpoint(open_server, key):
    versions = open_server.open_address + "/endpoints/open-doubling/v2/models/open-doubling/versions"
    assert call(f"{versions}/open-doubling/ready", key)[0] == 200
    status, refused = call(f"{versions}/none/ready", key)
    assert status == 404 and "has no version none" in refused["error"]


def test_the_client_of_openai(open_server, key):
    for base in (open_server.open_address, open_server.endpoint + "/_modelyard/open"):
        seen = ask("open_ai", base, key)
        assert seen["whole"] == "hello open world" and seen["pieces"] == ["hello", "open", "world"]
        assert seen["completion"] == "say!" and seen["listed"] == sorted(SCRIPTS)
        assert seen["missing"] == [404, "model_not_found"] and seen["bad key"] == [401, "invalid_api_key"]
    scoped = ask("open_ai", open_server.open_address + "/endpoints/open-chat", key, "anything")
    assert scoped["whole"] == "hello open world" and scoped["listed"] == ["open-chat"]


def test_keys_open_their_own_account_only(open_server, key):
    made = json.loads(open_server.command("accounts", "add", "222233334444", "--output", "json"))
    other = open_server.command(
        "endpoints", "key", "--access-key-id", made["AccessKeyId"], "--secret-access-key", made["SecretAccessKey"]
    ).strip()

    def models(bearer):
        status, listed = call(open_server.open_address + "/v1/models", bearer)
        return listed["models"] if status == 200 else status

    assert set(SCRIPTS) <= set(models(key)) and models(other) == []
    assert models(None) == 401 and models(other[:-2] + "xx") == 401
