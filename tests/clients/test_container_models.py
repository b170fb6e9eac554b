"""Models in real containers, through Podman: endpoints, batch transform and pipelines with an image that is not in the catalogue."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tarfile
import urllib.error
import urllib.request

import pytest

from conftest import Endpoints, Server, archive, poll, stop_all
from test_oci import containers, engine  # noqa: F401: a fixture
from test_transform import Transforms

NAME = "localhost/container-models:1"

# Doubles the rows it gets; custom attributes and the environment say what else it does.
SERVE = """#!PYTHON -u
import os, signal
# As the first process of a container it would not be ended by the signal.
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
import http.server, json, socket, sys, urllib.error, urllib.request

print("run as", *sys.argv)
if os.environ.get("MODE") == "end":
    sys.exit("the weights are missing")

def reaches(url):
    try:
        return urllib.request.urlopen(url, timeout=5).status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError as error:
        return str(error)

def writes(path):
    try:
        open(path, "w")
        return True
    except OSError:
        return False

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body, **headers):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        answers = {"/ping": "", "/execution-parameters": os.environ.get("WISHES")}
        if "SPEAKS" in os.environ:
            answers["/v1/models"] = '{"object": "list", "data": [{"id": "inner"}]}'
            answers["/v2"] = '{"name": "own", "extensions": []}'
            answers["/v2/models"] = '{"models": ["inner"]}'
        body = answers.get(self.path)
        self.answer(404 if body is None else 200, (body or "").encode())

    def speak(self, request):
        seen = {"path": self.path, "request": request, "has_key": "Authorization" in self.headers}
        if not request.get("stream"):
            return self.answer(request.get("status", 200), json.dumps(seen).encode(), Content_Type="application/json")
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in (json.dumps(seen), "[DONE]"):
            event = b"data: %s\\n\\n" % piece.encode()
            self.wfile.write(b"%x\\r\\n%s\\r\\n" % (len(event), event))
        self.wfile.write(b"0\\r\\n\\r\\n")

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        order = self.headers.get("X-Amzn-SageMaker-Custom-Attributes", "")
        if self.path != "/invocations":
            return self.speak(json.loads(body))
        if order == "die":
            os._exit(9)
        if order == "fail":
            return self.answer(418, b"no " + body, Content_Type="text/plain")
        if order == "stream":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for piece in (b"one,", b"two"):
                self.wfile.write(b"%x\\r\\n%s\\r\\n" % (len(piece), piece))
            return self.wfile.write(b"0\\r\\n\\r\\n")
        if order == "look":
            seen = {
                "host": socket.gethostname(),
                "networks": [name for _, name in socket.if_nameindex()],
                "server": reaches(os.environ.get("AWS_ENDPOINT_URL", "http://127.0.0.1:1") + "/"),
                "writes": writes("/opt/ml/model/x"),
                "environment": {name: value for name, value in os.environ.items() if name.startswith(("SAGEMAKER", "OWN"))},
                "accept": self.headers["Accept"],
            }
            weights = "/opt/ml/model/weights.txt"
            seen["weights"] = open(weights).read() if os.path.exists(weights) else None
            return self.answer(200, json.dumps(seen).encode(), Content_Type="application/json")
        rows = [str(2 * float(row)) for row in body.decode().split()]
        self.answer(200, "\\n".join(rows + [""]).encode(), X_Amzn_SageMaker_Custom_Attributes="rows=%d" % len(rows))

http.server.ThreadingHTTPServer(("0.0.0.0", int(os.environ["SAGEMAKER_BIND_TO_PORT"])), Handler).serve_forever()
"""


@pytest.fixture(scope="module")
def image(engine, tmp_path_factory):  # noqa: F811
    """This machine's Python with the libraries it needs, and a program `serve`."""
    root = tmp_path_factory.mktemp("image")
    python = os.path.realpath(sys.executable)
    library = sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix, "base": sys.base_prefix})
    modules = [f"{library}/lib-dynload/{name}" for name in os.listdir(f"{library}/lib-dynload")]
    needed = subprocess.run(["ldd", python, *modules], capture_output=True, text=True).stdout
    for path in {python, *re.findall(r"(/\S+) \(0x", needed)}:
        target = root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(os.path.realpath(path), target)
    unwanted = shutil.ignore_patterns("test", "tests", "config-*", "__pycache__", "idlelib", "lib2to3", "site-packages", "dist-packages")
    shutil.copytree(library, root / library.lstrip("/"), ignore=unwanted)
    (root / "tmp").mkdir()
    (root / "bin").mkdir(exist_ok=True)
    (root / "bin/serve").write_text(SERVE.replace("PYTHON", python))
    (root / "bin/serve").chmod(0o755)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.add(root, arcname=".")
    subprocess.run(["podman", *engine, "import", "--quiet", "-", NAME], input=packed.getvalue(), check=True, capture_output=True)
    return NAME


@pytest.fixture(scope="module")
def model_server(engine, tmp_path_factory):  # noqa: F811
    data = tmp_path_factory.mktemp("container-models") / "data"
    data.mkdir()
    (data / "modelyard.toml").write_text(f"[containers]\nengine = 'podman'\noptions = {engine[:4]}\nruntime = 'runc'\n")
    server = Server(data).start()
    yield server
    stop_all(server)
    assert containers(engine) == []


@pytest.fixture(scope="module")
def role(model_server):
    return model_server.client("iam").get_role(RoleName="ModelyardExecutionRole")["Role"]["Arn"]


@pytest.fixture(scope="module")
def bucket(model_server):
    name = "sagemaker-us-east-1-" + model_server.connection["account"]
    model_server.client("s3").create_bucket(Bucket=name)
    return name


@pytest.fixture
def models(model_server, bucket, role, image):
    """Endpoints and transforms of the image, from a few lines."""
    endpoints = Endpoints(model_server, bucket, role)
    endpoints.transforms = Transforms(model_server, bucket, role)
    endpoints.logs = model_server.client("logs")

    def create(name, weights=None, isolated=False, **environment):
        data = {}
        if weights:
            key = f"container-models/{name}/model.tar.gz"
            endpoints.s3.put_object(Bucket=bucket, Key=key, Body=archive({"weights.txt": weights}))
            data["ModelDataUrl"] = f"s3://{bucket}/{key}"
        endpoints.sagemaker.create_model(
            ModelName=name,
            ExecutionRoleArn=role,
            EnableNetworkIsolation=isolated,
            PrimaryContainer={"Image": image, "Environment": environment, **data},
        )

    def serve(name, instances=1, **options):
        create(name, **options)
        variant = {"VariantName": name, "ModelName": name, "InitialInstanceCount": instances, "InstanceType": "ml.m5.large"}
        endpoints.sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
        endpoints.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)

    def ask(name, order, body=b"", **options):
        answer = endpoints.invoke(name, body, ContentType="text/csv", CustomAttributes=order, **options)
        return answer["Body"].read()

    endpoints.create, endpoints.serve, endpoints.ask = create, serve, ask
    return endpoints


def gone(models, engine, *names):  # noqa: F811
    for name in names:
        models.delete(name)
    for name in names:
        poll(lambda: not models.sagemaker.list_endpoints(NameContains=name)["Endpoints"], "the endpoint is gone")
        assert of(engine, f"ep-{name}") == []


def of(engine, prefix):  # noqa: F811
    """The containers of replicas whose ids begin so."""
    return [name for name in containers(engine) if name.startswith(f"modelyard-{prefix}-")]


DEPLOY = """
import json, sys
import sagemaker
from sagemaker.model import Model

image, data, role = sys.argv[1:]
model = Model(image_uri=image, model_data=data, role=role, env={"OWN": "value"}, name="by-sdk", sagemaker_session=sagemaker.Session())
model.deploy(initial_instance_count=1, instance_type="ml.m5.large", endpoint_name="by-sdk", wait=False)
"""


def test_the_sdk_deploys_the_image_and_it_is_invoked(models, model_server, engine, image, bucket, role, tmp_path):  # noqa: F811
    models.s3.put_object(Bucket=bucket, Key="by-sdk/model.tar.gz", Body=archive({"weights.txt": "heavy"}))
    script = tmp_path / "deploy.py"
    script.write_text(DEPLOY)
    words = [sys.executable, script, image, f"s3://{bucket}/by-sdk/model.tar.gz", role]
    done = subprocess.run(words, env=model_server.environment(), cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    models.serve("isolated", isolated=True, OWN="other", SAGEMAKER_BIND_TO_PORT="9001")
    endpoint = models.wait("by-sdk")
    assert endpoint["EndpointStatus"] == "InService", endpoint.get("FailureReason")

    answer = models.invoke("by-sdk", b"1\n2.5\n", ContentType="text/csv")
    assert (answer["Body"].read(), answer["CustomAttributes"]) == (b"2.0\n5.0\n", "rows=2")
    seen = json.loads(models.ask("by-sdk", "look", Accept="application/json"))
    assert (seen["weights"], seen["writes"], seen["networks"], seen["accept"]) == ("heavy", False, ["lo"], "application/json")
    # Without a signature the server refuses, which is an answer.
    assert seen["server"] == 403, seen
    assert seen["environment"]["OWN"] == "value" and seen["environment"]["SAGEMAKER_BIND_TO_PORT"] == "8080"

    error = models.runtime.exceptions.ModelError
    with pytest.raises(error) as refused:
        models.ask("by-sdk", "fail", b"rows")
    assert refused.value.response["OriginalStatusCode"] == 418
    assert refused.value.response["OriginalMessage"] == "no rows"
    stream = models.runtime.invoke_endpoint_with_response_stream(
        EndpointName="by-sdk", Body=b"", ContentType="text/csv", CustomAttributes="stream"
    )
    assert b"".join(event["PayloadPart"]["Bytes"] for event in stream["Body"]) == b"one,two"

    assert models.wait("isolated")["EndpointStatus"] == "InService"
    seen = json.loads(models.ask("isolated", "look"))
    assert (seen["weights"], seen["networks"]) == (None, ["lo"]) and "refused" in seen["server"], seen
    assert seen["environment"] == {"OWN": "other", "SAGEMAKER_BIND_TO_PORT": "9001"}

    group = "/aws/sagemaker/Endpoints/by-sdk"
    [stream] = models.logs.describe_log_streams(logGroupName=group)["logStreams"]
    events = models.logs.get_log_events(logGroupName=group, logStreamName=stream["logStreamName"], startFromHead=True)["events"]
    lines = [event["message"] for event in events]
    assert "run as /bin/serve" in lines and any('"GET /ping HTTP/1.1" 200' in line for line in lines), lines
    gone(models, engine, "by-sdk", "isolated")


def test_a_container_gets_requests_of_protocols_that_it_speaks(models, model_server, engine):  # noqa: F811
    models.serve("speaking", SPEAKS="yes")
    models.serve("silent")
    for name in ("speaking", "silent"):
        assert models.wait(name)["EndpointStatus"] == "InService"
    key = model_server.command("endpoints", "key").strip()

    def call(path, body):
        request = urllib.request.Request(
            model_server.endpoint + "/_modelyard/open" + path,
            json.dumps(body).encode(),
            {"Authorization": "Bearer " + key, "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def seen(path, body):
        status, answer = call(path, body)
        assert status == 200, answer
        return json.loads(answer)

    # By the endpoint's name, which becomes the container's own; below the endpoint's address all is the container's.
    chat = {"model": "speaking", "messages": []}
    own = {"path": "/v1/chat/completions", "request": {**chat, "model": "inner"}, "has_key": False}
    assert seen("/v1/chat/completions", chat) == own
    assert seen("/endpoints/speaking/v1/chat/completions", chat)["request"] == chat
    status, streamed = call("/v1/chat/completions", {**chat, "stream": True})
    first, last = streamed.decode().split("\n\n")[:2]
    assert status == 200 and json.loads(first[6:])["path"] == own["path"] and last == "data: [DONE]"
    assert seen("/v2/models/speaking/infer", {"sequence": 1})["path"] == "/v2/models/inner/infer"
    assert seen("/endpoints/speaking/v2/models/other/infer", {})["path"] == "/v2/models/other/infer"
    status, failed = call("/v2/models/speaking/infer", {"status": 418})
    assert status == 418 and json.loads(failed)["request"] == {"status": 418}

    # One that speaks none gets what it would get by InvokeEndpoint.
    tensor = {"name": "x", "shape": [2, 1], "datatype": "FP32", "data": [1, 2.5], "parameters": {}}
    request = {"inputs": [tensor], "parameters": {"content_type": "text/csv"}}
    answer = seen("/v2/models/silent/infer", request)
    assert (answer["model_version"], answer["outputs"][0]["datatype"]) == ("silent", "BYTES")
    assert answer["outputs"][0]["data"] == ["2.0\n5.0\n"]
    gone(models, engine, "speaking", "silent")


def test_a_container_that_dies_is_replaced_and_one_that_lives_is_taken_up(models, model_server, engine):  # noqa: F811
    models.serve("lasting", instances=2)
    assert models.wait("lasting")["EndpointStatus"] == "InService"
    first = set(of(engine, "ep-lasting"))
    assert len(first) == 2
    model_server.kill()
    model_server.start()
    assert models.wait("lasting", "InService")["EndpointStatus"] == "InService"
    poll(lambda: answers(models, "lasting"), "the endpoint answers", seconds=10)
    assert set(of(engine, "ep-lasting")) == first, "they go on"

    with pytest.raises(models.runtime.exceptions.ModelError):
        models.ask("lasting", "die")
    assert models.ask("lasting", "", b"1\n") == b"2.0\n"
    now = lambda: set(of(engine, "ep-lasting"))  # noqa: E731
    poll(lambda: len(first & now()) == 1 and len(now()) == 2, "another took its place")

    # The supervisor is lost, and its container with it.
    [kept] = first & now()
    attempt = model_server.data_dir / "workloads" / kept.removeprefix("modelyard-") / "attempt.json"
    os.kill(json.loads(attempt.read_text())["supervisor_pid"], signal.SIGKILL)
    poll(lambda: kept not in now() and len(now()) == 2, "another took its place")
    assert models.ask("lasting", "", b"3\n") == b"6.0\n"
    gone(models, engine, "lasting")


def answers(models, name):
    try:
        return models.ask(name, "", b"1\n") == b"2.0\n"
    except models.runtime.exceptions.ClientError:
        return False


def test_what_cannot_serve_says_why(models, engine, image):  # noqa: F811
    models.serve("ending", MODE="end")
    models.serve("no-port", SAGEMAKER_BIND_TO_PORT="http")
    models.sagemaker.create_model(ModelName="absent", ExecutionRoleArn=models.role, PrimaryContainer={"Image": "127.0.0.1:1/none:1"})
    models.config("absent", absent=1.0)
    models.sagemaker.create_endpoint(EndpointName="absent", EndpointConfigName="absent")
    expected = {
        "ending": ("exited with code 1", "the weights are missing"),
        "no-port": ("SAGEMAKER_BIND_TO_PORT", "http"),
        "absent": ("127.0.0.1:1/none:1", "cannot be reached"),
    }
    for name, parts in expected.items():
        endpoint = models.wait(name)
        assert endpoint["EndpointStatus"] == "Failed"
        for part in parts:
            assert part in endpoint["FailureReason"], (name, endpoint["FailureReason"])
        assert of(engine, f"ep-{name}") == []
        models.delete(name)


def data_log(models, name):
    group = "/aws/sagemaker/TransformJobs"
    streams = models.logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=name + "/")["logStreams"]
    [stream] = [one["logStreamName"] for one in streams if one["logStreamName"].endswith("/data-log")]
    events = models.logs.get_log_events(logGroupName=group, logStreamName=stream, startFromHead=True)["events"]
    return [event["message"] for event in events]


def test_a_transform_asks_the_container_for_what_the_request_leaves_open(models, engine):  # noqa: F811
    wishes = {"MaxConcurrentTransforms": 4, "BatchStrategy": "SINGLE_RECORD", "MaxPayloadInMB": 2}
    models.create("wishing", WISHES=json.dumps(wishes))
    models.create("plain")
    models.create("too-much", WISHES=json.dumps({"MaxConcurrentTransforms": 60}))
    rows = "".join(f"{number}\n" for number in range(200))
    expected = "".join(f"{2.0 * number}\n" for number in range(200))
    transforms = models.transforms
    transforms.start("container-wishing", "wishing", {"a.csv": rows})
    transforms.start("container-asking", "wishing", {"a.csv": rows}, BatchStrategy="MultiRecord", MaxPayloadInMB=1)
    transforms.start("container-plain", "plain", {"a.csv": rows})
    transforms.start("container-too-much", "too-much", {"a.csv": rows})
    for name, line in {
        "wishing": "MaxConcurrentTransforms=4, MaxPayloadInMB=2, BatchStrategy=SINGLE_RECORD",
        "asking": "MaxConcurrentTransforms=4, MaxPayloadInMB=1, BatchStrategy=MULTI_RECORD",
        "plain": "MaxConcurrentTransforms=1, MaxPayloadInMB=6, BatchStrategy=MULTI_RECORD",
    }.items():
        job = transforms.wait("container-" + name)
        assert job["TransformJobStatus"] == "Completed", (name, job.get("FailureReason"))
        assert transforms.get("container-" + name, "a.csv.out") == expected
        assert any(line in message for message in data_log(models, "container-" + name)), name
    failed = transforms.wait("container-too-much")
    assert failed["TransformJobStatus"] == "Failed" and "60 times 6" in failed["FailureReason"], failed
    assert [name for name in containers(engine) if name.startswith("modelyard-tr-container-")] == []


def test_a_registered_image_is_run_by_a_pipeline(models, engine, image, bucket, role):  # noqa: F811
    sagemaker = models.sagemaker
    models.s3.put_object(Bucket=bucket, Key="registered/model.tar.gz", Body=archive({"weights.txt": "registered"}))
    models.s3.put_object(Bucket=bucket, Key="registered/in/a.csv", Body=b"4\n")
    sagemaker.create_model_package_group(ModelPackageGroupName="containers")
    package = sagemaker.create_model_package(
        ModelPackageGroupName="containers",
        ModelApprovalStatus="Approved",
        InferenceSpecification={
            "Containers": [{"Image": image, "ModelDataUrl": f"s3://{bucket}/registered/model.tar.gz"}],
            "SupportedContentTypes": ["text/csv"],
            "SupportedResponseMIMETypes": ["text/csv"],
        },
    )["ModelPackageArn"]
    source = {"S3DataType": "S3Prefix", "S3Uri": f"s3://{bucket}/registered/in"}
    steps = [
        {
            "Name": "Create",
            "Type": "Model",
            "Arguments": {"ExecutionRoleArn": role, "Containers": [{"ModelPackageName": package}]},
        },
        {
            "Name": "Transform",
            "Type": "Transform",
            "Arguments": {
                "ModelName": {"Get": "Steps.Create.ModelName"},
                "TransformInput": {"DataSource": {"S3DataSource": source}, "ContentType": "text/csv", "SplitType": "Line"},
                "TransformOutput": {"S3OutputPath": f"s3://{bucket}/registered/out"},
                "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
            },
        },
    ]
    definition = json.dumps({"Version": "2020-12-01", "Metadata": {}, "Parameters": [], "Steps": steps})
    sagemaker.create_pipeline(PipelineName="containers", PipelineDefinition=definition, RoleArn=role, ClientRequestToken="t" * 32)
    execution = sagemaker.start_pipeline_execution(PipelineName="containers")["PipelineExecutionArn"]

    def ended():
        described = sagemaker.describe_pipeline_execution(PipelineExecutionArn=execution)
        return described if described["PipelineExecutionStatus"] in ("Succeeded", "Failed") else None

    steps = lambda: sagemaker.list_pipeline_execution_steps(PipelineExecutionArn=execution)["PipelineExecutionSteps"]  # noqa: E731
    assert poll(ended, "the pipeline has ended")["PipelineExecutionStatus"] == "Succeeded", steps()
    assert models.s3.get_object(Bucket=bucket, Key="registered/out/a.csv.out")["Body"].read() == b"8.0\n"

    [model] = [one["Metadata"]["Model"]["Arn"].split("/")[-1] for one in steps() if one["StepName"] == "Create"]
    variant = {"VariantName": "a", "ModelName": model, "InitialInstanceCount": 1, "InstanceType": "ml.m5.large"}
    sagemaker.create_endpoint_config(EndpointConfigName="registered", ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName="registered", EndpointConfigName="registered")
    assert models.wait("registered")["EndpointStatus"] == "InService"
    assert json.loads(models.ask("registered", "look"))["weights"] == "registered"
    gone(models, engine, "registered")
