"""Starts the built binary on a free port with a data directory of its own, and points every client at it."""

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import boto3
import pytest
from botocore.config import Config

ROOT = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("MODELYARD_BINARY", ROOT / "target/debug/modelyard"))
LIGHT_IMAGES = Path(__file__).parent / "light-images.toml"

# What the outside world may have set for real AWS must not reach the tests.
for name in list(os.environ):
    if name.startswith(("AWS_", "SAGEMAKER_", "MODELYARD_")) and name not in ("MODELYARD_BINARY", "MODELYARD_SDK3_PYTHON", "MODELYARD_OPEN_PYTHON", "MODELYARD_ONNX_PYTHON"):
        del os.environ[name]


def pytest_addoption(parser):
    parser.addoption("--kills", type=int, default=50, help="random kills in test_nothing_lost.py")
    parser.addoption("--pipeline-kills", type=int, default=8, help="random kills in test_pipeline_faults.py")
    parser.addoption("--seed", type=int, default=None, help="what those kills follow; a failure says it")


class Server:
    """A running server; `stop`, `kill` and `start` may be called in any order."""

    def __init__(self, data_dir, *flags):
        self.data_dir = Path(data_dir)
        self.flags = flags
        self.variables = {}
        self.umask = -1
        self.log = self.data_dir.parent / "server.log"
        self.process = None

    def start(self):
        self.process = subprocess.Popen(
            [BINARY, "serve", "--data-dir", self.data_dir, "--listen", self.listen(), "--images", LIGHT_IMAGES, *self.flags],
            stdout=subprocess.PIPE,
            stderr=open(self.log, "ab"),
            text=True,
            env={**os.environ, **self.variables},
            umask=self.umask,
        )
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if " is ready at " in line:
                self.endpoint = line.split(" is ready at ")[1].strip()
                break
        else:
            pytest.fail("the server did not start:\n" + self.log.read_text())
        # The last line follows the connection file.
        for line in self.process.stdout:
            lines.append(line)
            if "your_script.py" in line:
                break
        self.announced = lines
        return self

    def listen(self):
        """The same port after a restart: running jobs know it."""
        return getattr(self, "endpoint", "http://127.0.0.1:0").split("//")[1].rstrip("/")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0
        self.process.stdout.close()

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    @property
    def connection(self):
        return json.loads((self.data_dir / "connection.json").read_text())

    def environment(self):
        """What `modelyard env` prints, over this process's environment."""
        printed = subprocess.run(
            [BINARY, "env", "--plain", "--data-dir", self.data_dir], check=True, capture_output=True, text=True
        ).stdout
        environment = dict(os.environ)
        for line in printed.splitlines():
            name, _, value = line.partition("=")
            if value:
                environment[name] = value
            else:
                environment.pop(name, None)
        return environment

    def command(self, *words, **options):
        """Runs a `modelyard` command against this server and returns its standard output."""
        done = subprocess.run(
            [BINARY, *words, "--data-dir", self.data_dir], capture_output=True, text=True, timeout=120, **options
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def wait_for_log(self, name, text):
        """Waits until the log of a job or an endpoint has a text: what a process writes is there a moment later."""
        poll(lambda: text in self.command("logs", name), f"the log of {name} says {text!r}")

    def client(self, service, key=None, secret=None, token=None, region="us-east-1"):
        connection = self.connection
        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            region_name=region,
            aws_access_key_id=key or connection["access_key_id"],
            aws_secret_access_key=secret or connection["secret_access_key"],
            aws_session_token=token,
            verify=connection.get("ca_bundle"),
            config=Config(retries={"max_attempts": 0}, read_timeout=120),
        )


def wait_for_line(jobs, name, text):
    """Waits until the program of a job says a text; the platform, which speaks of environments that are ready, has lines of its own."""
    own = "modelyard: "
    found = lambda: [line for line in jobs.lines(name) if text in line and line.startswith(own) == text.startswith(own)]
    return poll(found, f"{name} says {text!r}")


def stop_all(server):
    """Ends what a data directory still runs: endpoints and jobs outlive their server on purpose."""
    if server.process.poll() is not None:
        server.start()
    sagemaker = server.client("sagemaker")

    def components():
        return sagemaker.list_inference_components(MaxResults=100)["InferenceComponents"]

    for component in components():
        if component["InferenceComponentStatus"] != "Deleting":
            sagemaker.delete_inference_component(InferenceComponentName=component["InferenceComponentName"])
    poll(lambda: not components(), "all inference components are gone")
    for endpoint in sagemaker.list_endpoints(MaxResults=100)["Endpoints"]:
        if endpoint["EndpointStatus"] != "Deleting":
            sagemaker.delete_endpoint(EndpointName=endpoint["EndpointName"])
    for job in sagemaker.list_training_jobs(MaxResults=100, StatusEquals="InProgress")["TrainingJobSummaries"]:
        sagemaker.stop_training_job(TrainingJobName=job["TrainingJobName"])
    for job in sagemaker.list_processing_jobs(MaxResults=100, StatusEquals="InProgress")["ProcessingJobSummaries"]:
        sagemaker.stop_processing_job(ProcessingJobName=job["ProcessingJobName"])
    for job in sagemaker.list_transform_jobs(MaxResults=100, StatusEquals="InProgress")["TransformJobSummaries"]:
        sagemaker.stop_transform_job(TransformJobName=job["TransformJobName"])
    poll(lambda: not sagemaker.list_endpoints(MaxResults=100)["Endpoints"], "all endpoints are gone")
    for status in ("InProgress", "Stopping"):
        poll(
            lambda: not sagemaker.list_processing_jobs(MaxResults=100, StatusEquals=status)["ProcessingJobSummaries"],
            "all processing jobs have ended",
        )
        poll(
            lambda: not sagemaker.list_transform_jobs(MaxResults=100, StatusEquals=status)["TransformJobSummaries"],
            "all transform jobs have ended",
        )
        poll(
            lambda: not sagemaker.list_training_jobs(MaxResults=100, StatusEquals=status)["TrainingJobSummaries"],
            "all jobs have ended",
        )
    server.stop()


def poll(condition, what, seconds=120):
    """Waits for a condition of another process; the pause only keeps the loop from spinning."""
    end = time.monotonic() + seconds
    pause = threading.Event()
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        pause.wait(0.1)


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """One server for all tests that do not restart it."""
    server = Server(tmp_path_factory.mktemp("modelyard") / "data").start()
    yield server
    stop_all(server)


@pytest.fixture
def own_server(tmp_path):
    """A server for one test, which may kill and restart it."""
    server = Server(tmp_path / "data").start()
    yield server
    stop_all(server)


@pytest.fixture
def boto(server):
    """Makes a boto3 client of a service."""
    return server.client


@pytest.fixture(scope="session")
def role(server):
    return server.client("iam").get_role(RoleName="ModelyardExecutionRole")["Role"]["Arn"]


@pytest.fixture(scope="session")
def bucket(server):
    name = "sagemaker-us-east-1-" + server.connection["account"]
    server.client("s3").create_bucket(Bucket=name)
    return name


@pytest.fixture
def run_python(server, tmp_path):
    """Runs a script with the environment of `modelyard env`; returns its output."""

    def run(script, *arguments, directory=tmp_path, python=sys.executable, timeout=600, fails=False):
        done = subprocess.run(
            [python, script, *arguments],
            cwd=directory,
            env=server.environment(),
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return done.stdout + done.stderr if fails else done.stdout

    return run


BASE_IMAGE = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-base-python:3.11"
PYTORCH_INFERENCE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-inference:2.0.0-cpu-py310"


def archive(files):
    """A tar.gz of names and texts or bytes."""
    import io
    import tarfile
    import textwrap

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            data = content if isinstance(content, bytes) else textwrap.dedent(content).lstrip().encode()
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


class Jobs:
    """Training jobs from a few lines of Python."""

    def __init__(self, server, bucket, role):
        self.bucket, self.role = bucket, role
        self.sagemaker, self.s3, self.logs = (server.client(name) for name in ("sagemaker", "s3", "logs"))

    def start(self, name, script, seconds=300, extra_files=None, **request):
        key = f"jobs/{name}/sourcedir.tar.gz"
        files = {"train.py": script, **(extra_files or {})}
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=archive(files))
        parameters = {
            "sagemaker_program": '"train.py"',
            "sagemaker_submit_directory": json.dumps(f"s3://{self.bucket}/{key}"),
            **request.pop("HyperParameters", {}),
        }
        specification = {"TrainingImage": BASE_IMAGE, "TrainingInputMode": "File", **request.pop("AlgorithmSpecification", {})}
        resources = {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 10}
        output = request.pop("OutputDataConfig", {"S3OutputPath": f"s3://{self.bucket}/models"})
        self.sagemaker.create_training_job(
            TrainingJobName=name,
            AlgorithmSpecification=specification,
            RoleArn=self.role,
            HyperParameters=parameters,
            OutputDataConfig=output,
            ResourceConfig=request.pop("ResourceConfig", resources),
            StoppingCondition=request.pop("StoppingCondition", {"MaxRuntimeInSeconds": seconds}),
            **request,
        )

    def describe(self, name):
        return self.sagemaker.describe_training_job(TrainingJobName=name)

    def wait(self, name):
        def ended():
            job = self.describe(name)
            return job if job["TrainingJobStatus"] in ("Completed", "Failed", "Stopped") else None

        return poll(ended, f"{name} has ended")

    def run(self, name, script, **request):
        self.start(name, script, **request)
        return self.wait(name)

    def lines(self, name):
        group = "/aws/sagemaker/TrainingJobs"
        try:
            streams = self.logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=name + "/")["logStreams"]
        except self.logs.exceptions.ResourceNotFoundException:
            return []
        messages = []
        for stream in streams:
            token = {}
            while True:
                page = self.logs.get_log_events(
                    logGroupName=group, logStreamName=stream["logStreamName"], startFromHead=True, **token
                )
                messages += [event["message"] for event in page["events"]]
                if not page["events"]:
                    break
                token = {"nextToken": page["nextForwardToken"]}
        return messages

    def wait_for_line(self, name, text):
        return wait_for_line(self, name, text)


@pytest.fixture
def jobs(server, bucket, role):
    return Jobs(server, bucket, role)


class Endpoints:
    """Endpoints from a few lines of Python."""

    def __init__(self, server, bucket, role):
        self.bucket, self.role = bucket, role
        self.sagemaker, self.s3 = server.client("sagemaker"), server.client("s3")
        self.runtime = server.client("sagemaker-runtime")

    def model(self, name, script, extra_files=None, **container):
        key = f"endpoints/{name}/model.tar.gz"
        files = {"code/inference.py": script, **(extra_files or {})}
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=archive(files))
        self.sagemaker.create_model(
            ModelName=name,
            ExecutionRoleArn=self.role,
            PrimaryContainer={"Image": PYTORCH_INFERENCE, "ModelDataUrl": f"s3://{self.bucket}/{key}", **container},
        )

    def config(self, name, **weights):
        """An endpoint configuration of models by weight; the variants have the models' names."""
        self.sagemaker.create_endpoint_config(
            EndpointConfigName=name,
            ProductionVariants=[
                {
                    "VariantName": model.replace("_", "-"),
                    "ModelName": model.replace("_", "-"),
                    "InitialInstanceCount": 1,
                    "InstanceType": "ml.m5.large",
                    "InitialVariantWeight": weight,
                }
                for model, weight in weights.items()
            ],
        )

    def wait(self, name, *ends):
        def settled():
            endpoint = self.sagemaker.describe_endpoint(EndpointName=name)
            return endpoint if endpoint["EndpointStatus"] in (ends or ("InService", "Failed")) else None

        return poll(settled, f"{name} has settled")

    def deploy(self, name, script, **options):
        self.model(name, script, **options)
        self.config(name, **{name: 1.0})
        self.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
        return self.wait(name)

    def invoke(self, name, body, **options):
        options = {"ContentType": "application/json", **options}
        return self.runtime.invoke_endpoint(EndpointName=name, Body=body, **options)

    def delete(self, name):
        self.sagemaker.delete_endpoint(EndpointName=name)


@pytest.fixture
def endpoints(server, bucket, role):
    return Endpoints(server, bucket, role)


@pytest.fixture
def deploy_script(endpoints):
    """Deploys an inference script; the endpoint goes when the test ends."""
    deployed = []

    def deploy(name, script):
        endpoint = endpoints.deploy(name, script)
        deployed.append(name)
        assert endpoint["EndpointStatus"] == "InService", endpoint.get("FailureReason")
        return endpoint

    yield deploy
    for name in deployed:
        endpoints.delete(name)


class UnderLoad:
    """`threads` that go on until `over` is set, which the end of the block does."""

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        for thread in self.threads:
            thread.join()


@pytest.fixture
def gate():
    """A URL that answers once its event is set."""
    opened = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            opened.wait(90)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        threading.Thread(target=listener.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listener.server_port}/", opened
        opened.set()
        listener.shutdown()
