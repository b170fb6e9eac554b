"""Training jobs in real container images, through Podman; the images are made from local files."""

import io
import json
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
import uuid
from pathlib import Path

import pytest

from conftest import Jobs, Server, poll, stop_all

TRAIN = """#!/bin/sh
echo "run as $0 $*"
cat /opt/ml/code/note.txt
cat /opt/ml/input/data/train/a.csv
cat /opt/ml/input/config/hyperparameters.json; echo
echo "loss=0.25;"
echo "$TRAINING_JOB_NAME own=$OWN"
touch /opt/ml/input/data/train/b 2>/dev/null || echo "the channel is read-only"
case "$MODE" in
  wait) trap 'echo weights > /opt/ml/model/model.txt; exit 0' TERM; echo waiting; sleep 1000 & wait ;;
  resume)
    if test -e /opt/ml/checkpoints/begun; then
      echo "goes on"
    else
      trap 'echo "told to end"; exit 0' TERM
      echo begun > /opt/ml/checkpoints/begun; echo waiting; sleep 1000 & wait
    fi ;;
  fail) echo "the disk of the image is square" > /opt/ml/output/failure; exit 4 ;;
  memory) exec tail /dev/zero ;;
esac
mkdir -p /opt/ml/model/deep
echo weights > /opt/ml/model/deep/model.txt
chmod 600 /opt/ml/model/deep/model.txt
"""


@pytest.fixture(scope="module")
def engine():
    """A Podman whose storage is these tests' own. It wants a short path."""
    storage = Path(tempfile.mkdtemp(prefix="podman-"))
    options = ["--root", str(storage / "root"), "--runroot", str(storage / "run"), "--runtime", "runc"]
    yield options
    subprocess.run(["podman", *options[:4], "system", "reset", "--force"], capture_output=True, timeout=60)
    shutil.rmtree(storage, ignore_errors=True)


@pytest.fixture(scope="module")
def image(engine, tmp_path_factory):
    """An image with a shell, a program `train`, and code below /opt/ml, as users bake it in."""
    root = tmp_path_factory.mktemp("image")
    (root / "bin").mkdir()
    shutil.copy(shutil.which("busybox"), root / "bin/busybox")
    for applet in ("sh", "cat", "chmod", "mkdir", "sleep", "tail", "touch"):
        (root / "bin" / applet).symlink_to("busybox")
    (root / "opt/ml/code").mkdir(parents=True)
    (root / "opt/ml/code/note.txt").write_text("code of the image\n")
    (root / "bin/train").write_text(TRAIN)
    (root / "bin/train").chmod(0o755)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.add(root, arcname=".")
    name = "localhost/oci-test:1"
    subprocess.run(["podman", *engine, "import", "--quiet", "-", name], input=packed.getvalue(), check=True, capture_output=True)
    return name


@pytest.fixture(scope="module")
def oci_server(engine, tmp_path_factory):
    data = tmp_path_factory.mktemp("oci") / "data"
    data.mkdir()
    images = data.parent / "images.toml"
    images.write_text(
        "[[image]]\nname = 'never'\npattern = 'registry.example.com/never:.*'\nexecutor = 'oci'\npull = 'never'\n"
        "[[image]]\nname = 'small'\npattern = 'small:(?P<tag>.+)'\nexecutor = 'oci'\nimage = 'localhost/oci-test:{tag}'\n"
        "pull = 'missing'\nmemory_gib = 0.0625\ncpus = 1\npids_limit = 50\n"
    )
    (data / "modelyard.toml").write_text(f"[containers]\nengine = 'podman'\noptions = {engine[:4]}\nruntime = 'runc'\n")
    server = Server(data, "--images", str(images)).start()
    yield server
    stop_all(server)


@pytest.fixture
def jobs(oci_server):
    bucket = "sagemaker-oci"
    oci_server.client("s3").create_bucket(Bucket=bucket)
    role = oci_server.client("iam").get_role(RoleName="ModelyardExecutionRole")["Role"]["Arn"]
    return Jobs(oci_server, bucket, role)


def start(jobs, name, image, **request):
    """A job of the image itself: no script comes with it."""
    jobs.s3.put_object(Bucket=jobs.bucket, Key="train/a.csv", Body=b"1,2\n")
    request = {
        "StoppingCondition": {"MaxRuntimeInSeconds": 300},
        "HyperParameters": {"epochs": "3"},
        **request,
    }
    jobs.sagemaker.create_training_job(
        TrainingJobName=name,
        AlgorithmSpecification={
            "TrainingImage": image,
            "TrainingInputMode": "File",
            "MetricDefinitions": [{"Name": "loss", "Regex": "loss=([0-9.]+);"}],
            **request.pop("AlgorithmSpecification", {}),
        },
        RoleArn=jobs.role,
        InputDataConfig=[
            {
                "ChannelName": "train",
                "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{jobs.bucket}/train"}},
            }
        ],
        OutputDataConfig={"S3OutputPath": f"s3://{jobs.bucket}/models"},
        ResourceConfig=request.pop("ResourceConfig", {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 10}),
        **request,
    )


def model(jobs, job):
    bucket, key = job["ModelArtifacts"]["S3ModelArtifacts"].removeprefix("s3://").split("/", 1)
    with tarfile.open(fileobj=io.BytesIO(jobs.s3.get_object(Bucket=bucket, Key=key)["Body"].read())) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar if member.isfile()}


def containers(engine):
    listed = subprocess.run(
        ["podman", *engine, "ps", "--all", "--format", "{{.Names}}"], check=True, capture_output=True, text=True
    )
    return listed.stdout.split()


def test_an_image_that_is_not_in_the_catalogue_runs_as_it_is(jobs, image, engine):
    start(jobs, "whole", image, Environment={"OWN": "a value"})
    job = jobs.wait("whole")
    lines = jobs.lines("whole")
    assert job["TrainingJobStatus"] == "Completed", (job.get("FailureReason"), lines)
    for line in (
        "run as /bin/train ",
        "code of the image",
        "1,2",
        '{"epochs":"3"}',
        "whole own=a value",
        "the channel is read-only",
    ):
        assert line in lines, lines
    assert model(jobs, job) == {"deep/model.txt": b"weights\n"}
    assert [(metric["MetricName"], metric["Value"]) for metric in job["FinalMetricDataList"]] == [("loss", 0.25)]
    statuses = [transition["Status"] for transition in job["SecondaryStatusTransitions"]]
    assert statuses == ["Starting", "Downloading", "Training", "Uploading", "Completed"]
    assert containers(engine) == []


def test_the_request_may_name_entry_point_and_arguments(jobs, image):
    words = {"ContainerEntrypoint": ["sh", "-c"], "ContainerArguments": ["echo own $0 words", "few"]}
    start(jobs, "words", image, AlgorithmSpecification=words)
    assert jobs.wait("words")["TrainingJobStatus"] == "Completed"
    assert "own few words" in jobs.lines("words")


def test_failures_say_what_and_how_to_mend_it(jobs, image, oci_server):
    start(jobs, "never", "registry.example.com/never:1")
    start(jobs, "unreachable", "127.0.0.1:1/none:1")
    start(jobs, "no-program", image, AlgorithmSpecification={"ContainerEntrypoint": ["no-such-program"]})
    start(jobs, "failing", image, Environment={"MODE": "fail"})
    start(jobs, "hungry", "small:1", Environment={"MODE": "memory"})
    start(jobs, "line-break", image, Environment={"NOTES": "a\nb"})
    expected = {
        "never": ("Cannot pull algorithm container", "pull policy is \"never\"", "podman load"),
        "unreachable": ("Cannot pull algorithm container", "127.0.0.1:1/none:1", "cannot be reached"),
        "no-program": ("no-such-program", "not found"),
        "failing": ("the disk of the image is square",),
        "hungry": ("memory", "64 MiB"),
        "line-break": ("NOTES", "line break"),
    }
    for name, parts in expected.items():
        job = jobs.wait(name)
        assert job["TrainingJobStatus"] == "Failed"
        for part in parts:
            assert part in job["FailureReason"], (name, job["FailureReason"])
    secrets = (oci_server.connection["secret_access_key"], "AWS_SECRET_ACCESS_KEY")
    for name in expected:
        assert not any(secret in line for secret in secrets for line in jobs.lines(name))


def test_a_job_survives_the_server_and_is_stopped_by_the_next(jobs, image, engine, oci_server):
    start(jobs, "long", image, Environment={"MODE": "wait"})
    jobs.wait_for_line("long", "waiting")
    oci_server.kill()
    oci_server.start()
    assert len(containers(engine)) == 1, "the job goes on"
    jobs.sagemaker.stop_training_job(TrainingJobName="long")
    job = jobs.wait("long")
    assert job["TrainingJobStatus"] == "Stopped", job.get("FailureReason")
    assert model(jobs, job) == {"model.txt": b"weights\n"}
    assert containers(engine) == []


def test_containers_that_nobody_watches_go_with_the_next_start(jobs, image, engine, oci_server):
    watched, stray = f"modelyard.workloads={oci_server.data_dir}/workloads", f"modelyard-job-{uuid.uuid4()}"
    limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]
    words = ["run", "--detach", "--name", stray, "--label", watched, "--network", "none", *limits, "--entrypoint", "sleep"]
    subprocess.run(["podman", *engine, *words, image, "1000"], check=True, capture_output=True)
    assert containers(engine) == [stray]
    oci_server.kill()
    oci_server.start()
    poll(lambda: containers(engine) == [], "the stray is gone", seconds=30)


def test_a_processing_job_runs_in_the_image(jobs, image):
    jobs.s3.put_object(Bucket=jobs.bucket, Key="raw/a.csv", Body=b"1,2\n")
    source = {"S3DataType": "S3Prefix", "S3InputMode": "File", "LocalPath": "/opt/ml/processing/in"}
    script = """
        cat /opt/ml/code/note.txt; echo "$PROCESSING_JOB_ARN"
        cat /opt/ml/config/resourceconfig.json; echo
        mkdir /opt/ml/processing/out/deep; cat /opt/ml/processing/in/a.csv > /opt/ml/processing/out/deep/b.csv
        chmod 600 /opt/ml/processing/out/deep/b.csv
        echo "one file" > /opt/ml/output/message
        touch /opt/ml/config/x 2>/dev/null || echo "the configuration is read-only"
    """
    jobs.s3.put_object(Bucket=jobs.bucket, Key="raw/run.sh", Body=script.encode())
    jobs.sagemaker.create_processing_job(
        ProcessingJobName="contained",
        AppSpecification={"ImageUri": image, "ContainerEntrypoint": ["sh", "/opt/ml/processing/in/run.sh"]},
        ProcessingInputs=[{"InputName": "in", "S3Input": {"S3Uri": f"s3://{jobs.bucket}/raw", **source}}],
        ProcessingOutputConfig={
            "Outputs": [
                {
                    "OutputName": "out",
                    "S3Output": {
                        "S3Uri": f"s3://{jobs.bucket}/clean",
                        "LocalPath": "/opt/ml/processing/out",
                        "S3UploadMode": "EndOfJob",
                    },
                }
            ]
        },
        ProcessingResources={"ClusterConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 10}},
        RoleArn=jobs.role,
    )

    def ended():
        job = jobs.sagemaker.describe_processing_job(ProcessingJobName="contained")
        return None if job["ProcessingJobStatus"] == "InProgress" else job

    job = poll(ended, "the job has ended")
    assert (job["ProcessingJobStatus"], job["ExitMessage"]) == ("Completed", "one file\n"), job
    assert jobs.s3.get_object(Bucket=jobs.bucket, Key="clean/deep/b.csv")["Body"].read() == b"1,2\n"
    group = "/aws/sagemaker/ProcessingJobs"
    [stream] = jobs.logs.describe_log_streams(logGroupName=group, logStreamNamePrefix="contained/")["logStreams"]
    events = jobs.logs.get_log_events(logGroupName=group, logStreamName=stream["logStreamName"], startFromHead=True)["events"]
    lines = [event["message"] for event in events]
    assert "code of the image" in lines and job["ProcessingJobArn"] in lines and "the configuration is read-only" in lines


def test_doctor_tries_the_engine(oci_server):
    findings = oci_server.command("doctor")
    assert "ok   container engine     Podman" in findings and "runs containers with runc" in findings, findings


def test_an_interrupted_container_goes_on_from_its_checkpoint(jobs, image, engine, oci_server):
    start(
        jobs,
        "oci-spot",
        image,
        Environment={"MODE": "resume"},
        EnableManagedSpotTraining=True,
        StoppingCondition={"MaxRuntimeInSeconds": 300, "MaxWaitTimeInSeconds": 600},
        CheckpointConfig={"S3Uri": f"s3://{jobs.bucket}/checkpoints/oci-spot"},
    )
    jobs.wait_for_line("oci-spot", "waiting")
    oci_server.command("jobs", "interrupt", "oci-spot")
    job = jobs.wait("oci-spot")
    lines = jobs.lines("oci-spot")
    assert job["TrainingJobStatus"] == "Completed", (job.get("FailureReason"), lines)
    statuses = [transition["Status"] for transition in job["SecondaryStatusTransitions"]]
    assert statuses.count("Interrupted") == statuses.count("Restarting") == 1, statuses
    assert lines.index("told to end") < lines.index("goes on")
    assert containers(engine) == []


def test_a_container_that_lost_its_supervisor_is_tried_again(jobs, image, engine, oci_server):
    start(
        jobs,
        "oci-retry",
        image,
        Environment={"MODE": "resume"},
        RetryStrategy={"MaximumRetryAttempts": 1},
        CheckpointConfig={"S3Uri": f"s3://{jobs.bucket}/checkpoints/oci-retry"},
    )
    jobs.wait_for_line("oci-retry", "waiting")
    (attempt,) = (oci_server.data_dir / "workloads").glob("job-*/attempt.json")
    os.kill(json.loads(attempt.read_text())["supervisor_pid"], signal.SIGKILL)
    job = jobs.wait("oci-retry")
    lines = jobs.lines("oci-retry")
    assert job["TrainingJobStatus"] == "Completed", (job.get("FailureReason"), lines)
    assert "goes on" in lines and "Restarting" in [one["Status"] for one in job["SecondaryStatusTransitions"]]
    assert containers(engine) == []


def test_isolated_containers_of_one_job_share_a_network(jobs, image, engine):
    script = "cat /proc/net/dev; cat /etc/hosts | while read address name; do echo $name; done"
    resources = {"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 10}
    words = {"ContainerEntrypoint": ["sh", "-c"], "ContainerArguments": [script]}
    start(
        jobs, "oci-isolated", image, AlgorithmSpecification=words, ResourceConfig=resources, EnableNetworkIsolation=True
    )
    job = jobs.wait("oci-isolated")
    lines = jobs.lines("oci-isolated")
    assert job["TrainingJobStatus"] == "Completed", (job.get("FailureReason"), lines)
    assert lines.count("algo-1") == lines.count("algo-2") == 2, lines
    interfaces = [line.split(":")[0].strip() for line in lines if line.count(":") == 1 and line.split(":")[1].split()[0].isdigit()]
    assert interfaces == ["lo", "lo"], lines
    assert containers(engine) == []
