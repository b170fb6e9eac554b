"""Jobs behind their locks: isolation, what the locks are, what happens where one is missing."""

import datetime
import json
import os
import subprocess

import pytest

from conftest import BINARY, Jobs, Server, stop_all

# What a job without a network can still reach.
REACH = """
import os, socket
from urllib.parse import urlsplit

def reaches(host, port):
    try:
        socket.create_connection((host, port), 2).close()
    except OSError:
        return False
    return True

endpoint = urlsplit(os.environ["AWS_ENDPOINT_URL"])
print("interfaces", sorted(name for _, name in socket.if_nameindex()))
print("endpoint", reaches(endpoint.hostname, endpoint.port))
print("metadata", reaches("169.254.169.254", 80))
own = socket.create_server(("127.0.0.1", 0))
print("itself", reaches(*own.getsockname()))
named = socket.create_server(("algo-1", 0))
print("host", reaches("algo-1", named.getsockname()[1]))
open("/opt/ml/model/weights", "w").write("1")
"""


def test_an_isolated_job_reaches_nothing_but_itself(jobs, server):
    job = jobs.run("isolated-training", REACH, EnableNetworkIsolation=True)
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    assert job["EnableNetworkIsolation"] is True
    assert job["ModelArtifacts"]["S3ModelArtifacts"].endswith("/isolated-training/output/model.tar.gz")
    told = jobs.lines("isolated-training")
    for line in ("interfaces ['lo']", "endpoint False", "metadata False", "itself True", "host True"):
        assert line in told, told
    run = json.loads(server.command("jobs", "show", "isolated-training", "--output", "json"))["Hosts"]["algo-1"]
    held = {lock["lock"] for lock in run["containment"]["locks"] if lock["held"]}
    assert {"network_namespace", "mount_namespace", "pid_namespace", "no_capabilities", "seccomp"} <= held


def test_a_job_says_what_it_used(jobs, server):
    job = jobs.run(
        "using",
        """
        import time
        held = bytearray(100_000_000)
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            pass
        """,
    )
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    usage = json.loads(server.command("jobs", "show", "using", "--output", "json"))["Hosts"]["algo-1"]["usage"]
    assert usage["samples"] >= 1 and usage["peak_memory_bytes"] > 100_000_000 and usage["mean_cpu_percent"] > 5, usage
    for name, most in (("CPUUtilization", 100 * (os.cpu_count() or 1)), ("MemoryUtilization", 100), ("DiskWriteBytes", 10**12)):
        points = server.client("cloudwatch").get_metric_statistics(
            Namespace="/aws/sagemaker/TrainingJobs",
            MetricName=name,
            Dimensions=[{"Name": "Host", "Value": "using/algo-1"}],
            StartTime=job["CreationTime"] - datetime.timedelta(minutes=1),
            EndTime=job["TrainingEndTime"] + datetime.timedelta(minutes=1),
            Period=60,
            Statistics=["Maximum", "SampleCount"],
        )["Datapoints"]
        assert sum(point["SampleCount"] for point in points) == usage["samples"], (name, points, usage)
        assert 0 <= max(point["Maximum"] for point in points) <= most * 1.1, (name, points)
    shown = server.command("jobs", "show", "using")
    assert "Use of the machine:" in shown and "no_new_privileges      held" in shown


@pytest.fixture
def strict_server(tmp_path):
    """A server that lets no job onto the host's network."""
    server = Server(tmp_path / "data")
    server.data_dir.mkdir(mode=0o700)
    (server.data_dir / "modelyard.toml").write_text('required_locks = ["seccomp", "network_namespace"]\n')
    yield server.start()
    stop_all(server)


def test_required_locks_must_hold(strict_server):
    bucket = "sagemaker-us-east-1-" + strict_server.connection["account"]
    strict_server.client("s3").create_bucket(Bucket=bucket)
    role = strict_server.client("iam").get_role(RoleName="ModelyardExecutionRole")["Role"]["Arn"]
    jobs = Jobs(strict_server, bucket, role)
    job = jobs.run("open", "print('ran')")
    assert job["TrainingJobStatus"] == "Failed"
    assert "required_locks" in job["FailureReason"] and "network_namespace" in job["FailureReason"]
    assert "seccomp" not in job["FailureReason"] and "ran" not in jobs.lines("open")
    assert jobs.run("closed", "print('ran')", EnableNetworkIsolation=True)["TrainingJobStatus"] == "Completed"
    assert "ran" in jobs.lines("closed")


def test_doctor_tells_the_locks(tmp_path):
    def doctor(folder):
        done = subprocess.run(
            [BINARY, "doctor", "--output", "json", "--data-dir", folder], capture_output=True, text=True, timeout=60
        )
        return next(check for check in json.loads(done.stdout) if check["check"] == "locks")

    check = doctor(tmp_path)
    assert check["works"] and "pid_namespace" in check["found"].split("not here")[0], check
    (tmp_path / "modelyard.toml").write_text('required_locks = ["secomp"]\n')
    check = doctor(tmp_path)
    assert not check["works"] and "there is no lock" in check["found"], check
