"""Spot jobs are interrupted and go on from their checkpoints, through SDK v2, boto3 and kills of the server."""

import subprocess
import sys
import textwrap

import pytest
from botocore.exceptions import ClientError
from conftest import BASE_IMAGE, BINARY, Jobs, Server, poll, stop_all

# Counts on from its checkpoint, five in each run, until it is told to end; the third run reaches 15 and ends by itself.
COUNTER = """
    import os, pathlib, signal, sys, threading
    place = pathlib.Path("/opt/ml/checkpoints/count")
    count = int(place.read_text()) if place.exists() else 0
    print("begins at", count, flush=True)
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    last = count + 5
    while count < last:
        count += 1
        fresh = place.with_suffix(".new")
        fresh.write_text(str(count))
        os.replace(fresh, place)
        print("count", count, flush=True)
    if count < 15:
        ended.wait(120)
        print("told to end at", count, flush=True)
        sys.exit(0)
    pathlib.Path("/opt/ml/model/count").write_text(str(count))
"""


def times(seconds=300):
    return {"MaxRuntimeInSeconds": seconds, "MaxWaitTimeInSeconds": 2 * seconds}


def start(jobs, name, script=COUNTER, **request):
    """As `Jobs.start`, for a spot job."""
    jobs.start(
        name,
        script,
        EnableManagedSpotTraining=True,
        CheckpointConfig={"S3Uri": f"s3://{jobs.bucket}/spot/{name}"},
        StoppingCondition=times(),
        **request,
    )


def statuses(job):
    return [transition["Status"] for transition in job["SecondaryStatusTransitions"]]


def count_of(jobs, name):
    try:
        return int(jobs.s3.get_object(Bucket=jobs.bucket, Key=f"spot/{name}/count")["Body"].read())
    except jobs.s3.exceptions.NoSuchKey:
        return 0


def check_three_runs(jobs, name):
    job = jobs.wait(name)
    assert job["TrainingJobStatus"] == "Completed", (job.get("FailureReason"), jobs.lines(name))
    assert statuses(job).count("Interrupted") == statuses(job).count("Restarting") == 2, statuses(job)
    lines = jobs.lines(name)
    begun = [line for line in lines if line.startswith("begins at")]
    assert begun == ["begins at 0", "begins at 5", "begins at 10"], lines
    assert [line for line in lines if line.startswith("count ")] == [f"count {n}" for n in range(1, 16)]
    for text in ("modelyard: attempt 2 of the job begins", "modelyard: attempt 3 of the job begins", "told to end at 10"):
        assert text in lines
    assert count_of(jobs, name) == 15
    assert job["BillableTimeInSeconds"] == job["TrainingTimeInSeconds"]
    assert job["TrainingTimeInSeconds"] <= (job["TrainingEndTime"] - job["TrainingStartTime"]).total_seconds() + 1
    return job


def test_an_interrupted_job_goes_on_where_it_was(jobs, server):
    start(jobs, "spot-boto")
    for count in (5, 10):
        jobs.wait_for_line("spot-boto", f"count {count}")
        said = server.command("jobs", "interrupt", "spot-boto")
        assert said == "spot-boto is interrupted; it starts again when its program has ended\n"
        poll(lambda: f"begins at {count}" in jobs.lines("spot-boto"), "the next attempt runs")
    job = check_three_runs(jobs, "spot-boto")
    assert job["EnableManagedSpotTraining"] and job["StoppingCondition"] == times()
    assert "Interrupted" in server.command("jobs", "show", "spot-boto")
    refused = subprocess.run(
        [BINARY, "jobs", "interrupt", "spot-boto", "--data-dir", server.data_dir], capture_output=True, text=True
    )
    assert refused.returncode == 1 and "it is Completed" in refused.stderr


def test_kills_of_the_server_change_nothing(own_server):
    """The server is killed while an interruption is carried out: in the grace of the program, and right after the request."""
    role = own_server.client("iam").get_role(RoleName="ModelyardExecutionRole")["Role"]["Arn"]
    own_server.client("s3").create_bucket(Bucket="durable")
    jobs = Jobs(own_server, "durable", role)
    start(jobs, "killed")
    for count in (5, 10):
        jobs.wait_for_line("killed", f"count {count}")
        own_server.command("jobs", "interrupt", "killed")
        if count == 10:
            jobs.wait_for_line("killed", "told to end at 10")
        own_server.kill()
        own_server.start()
        poll(lambda: f"begins at {count}" in jobs.lines("killed"), "the next attempt runs")
    check_three_runs(jobs, "killed")
    assert not [path for path in (own_server.data_dir / "workloads").iterdir()], "no workload is left"


SDK_SCRIPT = """
    import sys
    from sagemaker.estimator import Estimator

    image, role, bucket = sys.argv[1:]
    estimator = Estimator(
        image_uri=image,
        role=role,
        instance_count=1,
        instance_type="ml.m5.large",
        entry_point="train.py",
        output_path=f"s3://{bucket}/models",
        checkpoint_s3_uri=f"s3://{bucket}/spot/spot-sdk",
        use_spot_instances=True,
        max_run=300,
        max_wait=600,
    )
    estimator.fit(job_name="spot-sdk")
"""


def test_the_settings_interrupt_a_job_of_the_sdk(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/modelyard.toml").write_text("[capacity]\nspot_interrupt_after_seconds = [4, 4]\n")
    (tmp_path / "train.py").write_text(textwrap.dedent(COUNTER))
    (tmp_path / "spot.py").write_text(textwrap.dedent(SDK_SCRIPT))
    server = Server(tmp_path / "data").start()
    try:
        role = server.client("iam").get_role(RoleName="ModelyardExecutionRole")["Role"]["Arn"]
        server.client("s3").create_bucket(Bucket="spot-sdk")
        done = subprocess.run(
            [sys.executable, "spot.py", BASE_IMAGE, role, "spot-sdk"],
            cwd=tmp_path,
            env=server.environment(),
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "begins at 10" in done.stdout and "Managed Spot Training savings: 0.0%" in done.stdout, done.stdout
        job = check_three_runs(Jobs(server, "spot-sdk", role), "spot-sdk")
        assert "spot_interrupt_after_seconds" in str(job["SecondaryStatusTransitions"])
    finally:
        stop_all(server)


def test_what_makes_no_sense_is_refused(jobs):
    with pytest.raises(ClientError, match="It must be present and be greater than or equal to MaxRuntimeInSeconds"):
        jobs.start("spot-refused", "pass", EnableManagedSpotTraining=True)
