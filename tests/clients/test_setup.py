"""How a server is set up: settings file, TLS, machines without a sandbox, the import hook."""

import os
import subprocess
import sys

import boto3
import pytest
from conftest import BINARY, Jobs, Server, stop_all


@pytest.fixture
def start(tmp_path):
    """Starts a server of its own with flags and a settings file."""
    started = []

    def start(*flags, settings=""):
        data_dir = tmp_path / "data"
        data_dir.mkdir()
        (data_dir / "modelyard.toml").write_text(settings)
        server = Server(data_dir, *flags)
        started.append(server)
        return server.start()

    yield start
    for server in started:
        stop_all(server)


def jobs_of(server):
    bucket = "a-bucket"
    server.client("s3").create_bucket(Bucket=bucket)
    role = server.client("iam").get_role(RoleName="ModelyardExecutionRole")["Role"]["Arn"]
    return Jobs(server, bucket, role)


def test_tls_reaches_into_jobs(start):
    server = start("--tls")
    assert server.endpoint.startswith("https://")
    # As a user has it: only what `modelyard env` prints.
    program = "import boto3; print(boto3.client('sts').get_caller_identity()['Account'])"
    done = subprocess.run([sys.executable, "-c", program], env=server.environment(), capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "123456789012", done.stderr
    with pytest.raises(Exception, match="CERTIFICATE_VERIFY_FAILED"):
        boto3.client(
            "sts", endpoint_url=server.endpoint, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b"
        ).get_caller_identity()
    jobs = jobs_of(server)
    job = jobs.run(
        "over-tls",
        """
        import os, ssl, urllib.request
        trusted = ssl.create_default_context(cafile=os.environ["AWS_CA_BUNDLE"])
        health = urllib.request.urlopen(os.environ["AWS_ENDPOINT_URL"] + "/_modelyard/health", context=trusted)
        print("seen from the job:", health.url.split(":")[0], health.status)
        """,
    )
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    assert "seen from the job: https 200" in jobs.lines("over-tls")
    assert "over-tls" in server.command("jobs")


def test_settings_come_from_the_file_and_flags_win(start, tmp_path):
    server = start("--region", "eu-west-1", settings='region = "us-west-2"\naccount = "111122223333"\n')
    assert server.connection["region"] == "eu-west-1"
    assert server.client("sts", region="eu-west-1").get_caller_identity()["Account"] == "111122223333"


def test_an_unknown_setting_is_an_error(tmp_path):
    (tmp_path / "modelyard.toml").write_text("lisen = '127.0.0.1:0'\n")
    done = subprocess.run([BINARY, "serve", "--data-dir", tmp_path], capture_output=True, text=True, timeout=30)
    assert done.returncode != 0 and "lisen" in done.stderr and "modelyard.toml" in done.stderr


def test_no_start_without_a_sandbox(tmp_path):
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho user namespaces are switched off >&2\nexit 1\n")
    broken.chmod(0o755)
    done = subprocess.run(
        [BINARY, "serve", "--data-dir", tmp_path / "data", "--listen", "127.0.0.1:0"],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode != 0
    assert "user code cannot be confined here" in done.stderr and "user namespaces are switched off" in done.stderr


def test_the_sdk_asks_often_and_keeps_its_timeouts(server):
    program = """
import time
started = time.monotonic()
import sagemaker.session as session
before = session.time.time()
session.time.sleep(30)
assert session.time.time() - before >= 30, "thirty seconds of the SDK's clock have not passed"
assert time.monotonic() - started < 25, "the pause was not shortened"

class Client:
    def describe_training_job(self, **_):
        now = session.time.time()
        session.time.sleep(30)
        print("passed with a time limit:", session.time.time() - now < 30)
        raise KeyError("enough")

class Session:
    sagemaker_client = Client()

try:
    session._logs_for_job(Session(), "job", timeout=600)
except KeyError:
    pass
"""
    environment = {**server.environment(), "SAGEMAKER_SUPPRESS_V2_WARNING": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "passed with a time limit: True" in done.stdout
