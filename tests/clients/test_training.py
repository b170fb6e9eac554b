"""Training jobs that really run: results, logs, metrics, stops, limits, failure cards, confinement."""

import io
import json
import tarfile

import pytest

from conftest import BASE_IMAGE


def extract(jobs, uri):
    bucket, key = uri.removeprefix("s3://").split("/", 1)
    body = jobs.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    return tarfile.open(fileobj=io.BytesIO(body))


def test_the_container_contract(jobs):
    jobs.s3.put_object(Bucket=jobs.bucket, Key="contract/train/deep/a.csv", Body=b"1,2\n")
    job = jobs.run(
        "contract",
        """
        import json, os, sys
        print("arguments", sys.argv[1:])
        print("channel", open(os.environ["SM_CHANNEL_TRAIN"] + "/deep/a.csv").read().strip())
        print("hyperparameters", json.load(open("/opt/ml/input/config/hyperparameters.json"))["epochs"])
        print("resources", json.load(open("/opt/ml/input/config/resourceconfig.json"))["current_host"])
        print("own", os.environ["OWN"], os.environ["TRAINING_JOB_NAME"])
        import helper
        open(os.environ["SM_MODEL_DIR"] + "/model.txt", "w").write("the model")
        open(os.environ["SM_OUTPUT_DATA_DIR"] + "/report.txt", "w").write("the report")
        """,
        extra_files={"helper.py": "print('helper is imported')"},
        HyperParameters={"epochs": "3", "name": '"x y"'},
        Environment={"OWN": "value"},
        InputDataConfig=[
            {
                "ChannelName": "train",
                "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{jobs.bucket}/contract/train"}},
            }
        ],
    )
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    lines = jobs.lines("contract")
    for line in (
        "arguments ['--epochs', '3', '--name', 'x y']",
        "channel 1,2",
        "hyperparameters 3",
        "resources algo-1",
        "own value contract",
        "helper is imported",
    ):
        assert line in lines, lines
    with extract(jobs, job["ModelArtifacts"]["S3ModelArtifacts"]) as tar:
        assert tar.extractfile("model.txt").read() == b"the model"
    with extract(jobs, f"s3://{jobs.bucket}/models/contract/output/output.tar.gz") as tar:
        assert tar.extractfile("report.txt").read() == b"the report"
    statuses = [transition["Status"] for transition in job["SecondaryStatusTransitions"]]
    assert statuses == ["Starting", "Downloading", "Training", "Uploading", "Completed"]
    assert job["TrainingStartTime"] <= job["TrainingEndTime"]
    waiter = jobs.sagemaker.get_waiter("training_job_completed_or_stopped")
    waiter.wait(TrainingJobName="contract", WaiterConfig={"Delay": 1, "MaxAttempts": 1})


def test_interpreters_that_start_early_start_alike(jobs):
    """Nothing shows whether the interpreter was started while its job waited for the disk, or a variable forbade that."""
    script = """
        import json, os, sys
        changing = ("AWS_", "SM_", "TRAINING_JOB_", "SAGEMAKER_", "PYTHONHASHSEED")
        variables = {name: value for name, value in os.environ.items() if not name.startswith(changing)}
        print(json.dumps(variables, sort_keys=True))
        print(sys.path, sys.argv, sys.orig_argv, sys.flags.dev_mode, sorted(sys.modules))
        print(os.getcwd(), os.readlink("/proc/self/fd/0"), sys.stdin.read() == "", os.getpgid(0) == os.getpid())
        import helper
    """
    files = {"helper.py": "print(__file__, open(__file__).name)"}
    early = jobs.run("start-early", script, extra_files=files)
    late = jobs.run("start-late", script, extra_files=files, Environment={"PYTHONHASHSEED": "0"})
    for job in (early, late):
        assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    own, other = ([line for line in jobs.lines(name) if not line.startswith("modelyard: ")] for name in ("start-early", "start-late"))
    assert len(own) == 4 and own == other


def test_metrics_are_read_from_the_log(jobs):
    job = jobs.run(
        "metrics",
        "for step in range(3): print(f'loss={1 / (step + 1):.3f};')",
        AlgorithmSpecification={"MetricDefinitions": [{"Name": "loss", "Regex": "loss=([0-9.]+);"}, {"Name": "none", "Regex": "x=(.*)"}]},
    )
    [metric] = job["FinalMetricDataList"]
    assert (metric["MetricName"], round(metric["Value"], 3)) == ("loss", 0.333)
    found = jobs.sagemaker.search(
        Resource="TrainingJob",
        SearchExpression={"Filters": [{"Name": "Metrics.loss", "Operator": "LessThan", "Value": "0.5"}]},
    )["Results"]
    assert "metrics" in [result["TrainingJob"]["TrainingJobName"] for result in found]


def test_own_entry_point(jobs):
    job = jobs.run(
        "entry-point",
        "",
        AlgorithmSpecification={
            "ContainerEntrypoint": ["/bin/bash"],
            "ContainerArguments": ["-c", "echo $TRAINING_JOB_NAME runs; python3 -m pip --version; echo done > /opt/ml/model/m"],
        },
    )
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    assert "entry-point runs" in jobs.lines("entry-point")


def test_a_failure_says_why(jobs, server):
    job = jobs.run(
        "failing",
        """
        def inner(): raise ValueError("the data is bad")
        print("about to fail")
        inner()
        """,
    )
    assert job["TrainingJobStatus"] == "Failed"
    assert "ValueError: the data is bad" in job["FailureReason"] and len(job["FailureReason"]) <= 1024
    assert "ModelArtifacts" not in job or not job["ModelArtifacts"]
    shown = server.command("jobs", "show", "failing")
    assert "Traceback (most recent call last)" in shown and "about to fail" in shown
    card = json.loads(server.command("jobs", "show", "failing", "--output", "json"))["FailureCard"]
    assert (card["cause"], card["exit_code"]) == ("exception", 1)


@pytest.mark.parametrize(
    ("name", "script", "expected"),
    [
        ("exit-code", "import sys; sys.exit(3)", "3"),
        ("signal", "import os; os.kill(os.getpid(), 11)", "SIGSEGV"),
        ("own-message", "open('/opt/ml/output/failure', 'w').write('told by the job'); raise SystemExit(1)", "told by the job"),
    ],
)
def test_failures_of_each_kind(jobs, name, script, expected):
    job = jobs.run("failure-" + name, script)
    assert job["TrainingJobStatus"] == "Failed"
    assert expected in job["FailureReason"]


def test_missing_input_fails_the_job(jobs):
    uri = f"s3://{jobs.bucket}/nothing/here"
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": uri}}
    job = jobs.run("missing-input", "print('never')", InputDataConfig=[{"ChannelName": "train", "DataSource": source}])
    assert job["TrainingJobStatus"] == "Failed" and uri in job["FailureReason"]
    assert "never" not in jobs.lines("missing-input")


def test_unknown_image_fails_the_job(jobs):
    job = jobs.run("unknown-image", "", AlgorithmSpecification={"TrainingImage": "example.com/my-own:1"})
    assert job["TrainingJobStatus"] == "Failed" and "example.com/my-own:1" in job["FailureReason"]


def test_stop_gives_time_to_save(jobs):
    jobs.start(
        "stopped",
        """
        import signal, sys, threading
        def stop(*_):
            open("/opt/ml/model/saved", "w").write("in time")
            sys.exit(0)
        signal.signal(signal.SIGTERM, stop)
        print("ready", flush=True)
        threading.Event().wait()
        """,
    )
    jobs.wait_for_line("stopped", "ready")
    jobs.sagemaker.stop_training_job(TrainingJobName="stopped")
    job = jobs.wait("stopped")
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "Stopped")
    with extract(jobs, job["ModelArtifacts"]["S3ModelArtifacts"]) as tar:
        assert tar.extractfile("saved").read() == b"in time"
    with pytest.raises(jobs.sagemaker.exceptions.ClientError, match="training job is in status Stopped"):
        jobs.sagemaker.stop_training_job(TrainingJobName="stopped")
    jobs.sagemaker.delete_training_job(TrainingJobName="stopped")
    with pytest.raises(jobs.sagemaker.exceptions.ClientError, match="Requested resource not found"):
        jobs.describe("stopped")


def test_time_limit(jobs):
    job = jobs.run("limited", "import threading; threading.Event().wait()", seconds=1)
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "MaxRuntimeExceeded")


def test_requirements_are_installed(jobs):
    wheel_source = {
        "requirements.txt": "./package\n",
        "package/setup.py": "from setuptools import setup\nsetup(name='tiny', version='1', py_modules=['tiny'])\n",
        "package/tiny.py": "value = 42\n",
    }
    job = jobs.run("requirements", "import tiny; print('tiny is', tiny.value)", extra_files=wheel_source)
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    assert "tiny is 42" in jobs.lines("requirements")


def test_a_job_uses_its_own_credentials(jobs, server):
    job = jobs.run(
        "credentials",
        """
        import os, urllib.request
        print("session", os.environ["AWS_ACCESS_KEY_ID"].startswith("ASIA"), bool(os.environ["AWS_SESSION_TOKEN"]))
        with urllib.request.urlopen(os.environ["AWS_ENDPOINT_URL"] + "/_modelyard/health") as answer:
            print("reaches", answer.status)
        """,
    )
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    lines = jobs.lines("credentials")
    assert "session True True" in lines and "reaches 200" in lines


def test_a_job_is_confined(jobs, server):
    job = jobs.run(
        "confined",
        """
        import os
        status = open("/proc/self/status").read()
        field = lambda name: next(line.split()[1] for line in status.splitlines() if line.startswith(name + ":"))
        print("uid", os.getuid(), "capabilities", field("CapEff"), "privileges", field("NoNewPrivs"))
        print("data directory", os.path.exists(os.environ["DATA"]))
        try:
            open("/usr/canary", "w")
        except OSError as error:
            print("system", type(error).__name__)
        print("processes", len([entry for entry in os.listdir("/proc") if entry.isdigit()]) < 10)
        """,
        Environment={"DATA": str(server.data_dir / "modelyard.db")},
    )
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    lines = jobs.lines("confined")
    [line] = [line for line in lines if line.startswith("uid")]
    assert not line.startswith("uid 0 ") and line.endswith("capabilities 0000000000000000 privileges 1")
    assert "data directory False" in lines and "processes True" in lines
    assert any(line in ("system OSError", "system PermissionError") for line in lines), lines


@pytest.mark.parametrize("name", ["../escape.txt", "/absolute.txt", "a/../../escape.txt"])
def test_hostile_source_archives_are_refused(jobs, name):
    job_name = "hostile-" + "".join(character for character in name if character.isalnum()) + str(len(name))
    job = jobs.run(job_name, "print('never')", extra_files={name: "canary"})
    assert job["TrainingJobStatus"] == "Failed"
    assert "escape.txt" in job["FailureReason"] or "absolute.txt" in job["FailureReason"]
    assert "never" not in jobs.lines(job_name)


def test_the_list_shows_jobs(jobs, server):
    jobs.run("listed", "pass")
    names = [job["TrainingJobName"] for job in jobs.sagemaker.list_training_jobs(NameContains="listed")["TrainingJobSummaries"]]
    assert names == ["listed"]
    assert "listed" in server.command("jobs")
    assert json.loads(server.command("jobs", "list", "--name", "listed", "--output", "json"))[0]["TrainingJobStatus"] == "Completed"
    arn = jobs.describe("listed")["TrainingJobArn"]
    jobs.sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": "a", "Value": "b"}])
    assert jobs.sagemaker.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "a", "Value": "b"}]
    assert BASE_IMAGE in server.command("jobs", "show", "listed")
