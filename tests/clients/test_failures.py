"""Why jobs failed, hang or wait, as people and SDKs see it; and a look inside a running one."""

import json
import os
import pty
import subprocess

import pytest
from conftest import BASE_IMAGE, BINARY, Jobs, Server, stop_all


def why(server, name):
    return json.loads(server.command("jobs", "why", name, "--output", "json"))


def test_why_says_what_happened_and_what_to_do(jobs, server):
    script = """
        def load(rows):
            return rows["label"]
        print("about to fail")
        load({"id": 1})
    """
    first = jobs.run("why-first", script)
    assert first["FailureReason"].startswith("AlgorithmError: ExecuteUserScriptError:\nExitCode 1\n")
    assert "KeyError: 'label'" in first["FailureReason"] and first["FailureReason"].endswith("exit code: 1")
    jobs.run("why-second", script)
    shown = server.command("jobs", "why", "why-second")
    assert "why-second: Failed (exception)" in shown
    assert "raised KeyError in load (" in shown and "train.py, line 2): 'label'" in shown
    assert 'return rows["label"]' in shown
    assert "What to do:" in shown and "modelyard logs why-second" in shown
    assert "earlier: 1 job with the same cause, last at 20" in shown and "(why-first)" in shown
    answer = why(server, "why-second")
    assert answer["Card"]["cause"] == "exception" and answer["Earlier"]["LastJob"] == "why-first"
    assert why(server, "why-first")["Later"]["Count"] == 1
    whole = server.command("jobs", "show", "why-second")
    assert "Why it failed (exception)" in whole and "Traceback (most recent call last)" in whole and "earlier: 1 job" in whole
    as_json = json.loads(server.command("jobs", "show", "why-second", "--output", "json"))
    assert as_json["FailureCard"] == answer["Card"] and as_json["Explanation"]["Earlier"] == answer["Earlier"]


def test_a_crash_in_native_code_shows_its_line(jobs, server):
    script = """
        import ctypes
        def step():
            ctypes.string_at(0)
        step()
    """
    job = jobs.run("why-crash", script, Environment={"PYTHONFAULTHANDLER": "1"})
    assert "SIGSEGV (exit code 139)" in job["FailureReason"]
    answer = why(server, "why-crash")
    assert answer["Card"]["cause"] == "signal" and answer["Card"]["signal"] == "SIGSEGV"
    assert "in step (" in answer["Sentence"], answer["Sentence"]


SETUP = "from setuptools import setup\nsetup(name='%s', version='1', install_requires=%s)\n"


@pytest.mark.parametrize(
    ("name", "files", "named"),
    [
        ("broken", {"requirements.txt": "foo=1.0\n"}, "foo=1.0"),
        (
            "conflict",
            {
                "requirements.txt": "./a\n./b\n",
                "a/setup.py": SETUP % ("tiny-a", "['tiny-b==2']"),
                "b/setup.py": SETUP % ("tiny-b", "[]"),
            },
            "tiny-b==2",
        ),
        ("build", {"requirements.txt": "./c\n", "c/setup.py": "raise RuntimeError('needs the moon')\n"}, "needs the moon"),
    ],
)
def test_the_one_requirement_in_the_way_is_named(jobs, server, name, files, named):
    job = jobs.run("needs-" + name, "print('never')", extra_files=files)
    assert job["TrainingJobStatus"] == "Failed"
    answer = why(server, "needs-" + name)
    assert answer["Card"]["cause"] == "dependency", answer
    assert named in answer["Sentence"], answer
    assert named in job["FailureReason"][:400], job["FailureReason"]


def test_the_missing_object_is_named(jobs, server):
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{jobs.bucket}/not/there"}}
    jobs.run("why-missing", "", InputDataConfig=[{"ChannelName": "train", "DataSource": source}])
    answer = why(server, "why-missing")
    assert answer["Card"]["cause"] == "missing_object"
    assert jobs.bucket in answer["Sentence"] and "not/there" in answer["Sentence"]


def test_running_jobs_are_explained_and_opened(jobs, server):
    script = """
        import threading
        print("step 1", flush=True)
        threading.Event().wait()
    """
    jobs.start("look-inside", script, RemoteDebugConfig={"EnableRemoteDebug": True}, Environment={"COLOUR": "green"})
    jobs.wait_for_line("look-inside", "step 1")
    shown = server.command("jobs", "why", "look-inside")
    assert "look-inside: InProgress, Training" in shown and "Its program runs" in shown and "step 1" in shown
    command = [BINARY, "jobs", "shell", "look-inside", "--data-dir", server.data_dir]
    program = "echo $COLOUR; cat; ls /opt/ml/code; echo bad >&2; exit 3"
    done = subprocess.run([*command, "--", "sh", "-c", program], input="typed\n", capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == ("green\ntyped\ntrain.py\n", "bad\n", 3)
    # The same user as the job, and none of the places of the server.
    program = f"id -u; ls {server.data_dir}/workloads"
    done = subprocess.run([*command, "--host", "algo-1", "--", "sh", "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode != 0 and "No such file" in done.stderr
    assert done.stdout.strip() == ("64000" if os.geteuid() == 0 else str(os.geteuid()))
    in_terminal(command)
    jobs.sagemaker.update_training_job(TrainingJobName="look-inside", RemoteDebugConfig={"EnableRemoteDebug": False})
    done = subprocess.run([*command, "--", "true"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "RemoteDebugConfig.EnableRemoteDebug" in done.stderr
    server.command("jobs", "stop", "look-inside")
    assert jobs.wait("look-inside")["TrainingJobStatus"] == "Stopped"
    assert "stopped on request" in server.command("jobs", "why", "look-inside")


def in_terminal(command):
    """Types into a shell on a terminal, as a person does."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    os.write(ours, b"tty; echo $((40 + 2)); exit 9\n")
    shown = b""
    try:
        while chunk := os.read(ours, 4096):
            shown += chunk
    except OSError:
        pass  # the terminal's other end is closed
    assert process.wait(60) == 9
    assert b"/dev/pts/" in shown and b"42" in shown, shown


@pytest.fixture
def impatient_server(tmp_path):
    """A server that ends jobs which hang."""
    settings = tmp_path / "settings.toml"
    settings.write_text('hang_after_seconds = 2\nhang_action = "fail"\n')
    server = Server(tmp_path / "data", "--config", settings).start()
    yield server
    stop_all(server)


def test_a_hang_ends_the_job_when_the_settings_say_so(impatient_server):
    server = impatient_server
    role = server.client("iam").get_role(RoleName="ModelyardExecutionRole")["Role"]["Arn"]
    jobs = Jobs(server, "hang-bucket", role)
    jobs.s3.create_bucket(Bucket="hang-bucket")
    jobs.start("hanging", "import threading; print('ready', flush=True); threading.Event().wait()")
    jobs.wait_for_line("hanging", "ready")
    # What is known of the silence does not depend on one life of the server.
    server.kill()
    server.start()
    job = jobs.wait("hanging")
    assert job["TrainingJobStatus"] == "Failed" and "no line in its log and no CPU use" in job["FailureReason"]
    answer = why(server, "hanging")
    assert answer["Card"]["cause"] == "hang" and any("waits" in line for line in answer["Card"]["evidence"])
    assert any("It is ended for that" in line for line in jobs.lines("hanging"))


def test_the_sdk_debugs_and_updates(server, bucket, role, run_python, tmp_path):
    (tmp_path / "job.py").write_text("import threading\nprint('ready', flush=True)\nthreading.Event().wait()\n")
    (tmp_path / "run.py").write_text(
        f"""
import threading
import sagemaker
from sagemaker.estimator import Estimator
session = sagemaker.Session(default_bucket={bucket!r})
estimator = Estimator(
    image_uri={BASE_IMAGE!r}, role={role!r}, instance_count=1, instance_type="ml.m5.large", sagemaker_session=session,
    entry_point="job.py", base_job_name="sdk-debug", enable_remote_debug=True, enable_infra_check=True, disable_profiler=True,
)
estimator.fit(wait=False, logs=False)
name = estimator.latest_training_job.name
print("NAME", name, estimator.get_remote_debug_config())
while session.describe_training_job(name)["SecondaryStatus"] != "Training":
    threading.Event().wait(0.1)
estimator.disable_remote_debug()
"""
    )
    output = run_python("run.py")
    name = output.split("NAME ")[1].split()[0]
    assert "'EnableRemoteDebug': True" in output
    jobs = Jobs(server, bucket, role)
    jobs.wait_for_line(name, "ready")
    assert jobs.wait_for_line(name, "modelyard: infrastructure check: ok")
    assert jobs.describe(name)["RemoteDebugConfig"] == {"EnableRemoteDebug": False}
    jobs.sagemaker.stop_training_job(TrainingJobName=name)
    assert jobs.wait(name)["TrainingJobStatus"] == "Stopped"


@pytest.mark.parametrize("expression", [r"(((a{1,1000}){1,1000}){1,1000})", r"(?=look)", "(" * 200 + ")" * 200])
def test_hostile_metric_expressions_name_their_field(jobs, expression):
    definitions = {"MetricDefinitions": [{"Name": "m", "Regex": expression}]}
    with pytest.raises(jobs.sagemaker.exceptions.ClientError) as refused:
        jobs.start("regex-bomb", "", AlgorithmSpecification=definitions)
    error = refused.value.response["Error"]
    assert error["Code"] == "ValidationException"
    assert error["Message"].startswith("AlgorithmSpecification.MetricDefinitions[0].Regex: ")


def test_a_slow_metric_expression_does_not_hold_the_job_up(jobs):
    definitions = {"MetricDefinitions": [{"Name": "slow", "Regex": "(.*a){12}"}, {"Name": "loss", "Regex": "loss=(.*)"}]}
    script = """
        for _ in range(200):
            print("a" * 60000)
        print("loss=0.25")
    """
    job = jobs.run("slow-regex", script, AlgorithmSpecification=definitions)
    assert job["TrainingJobStatus"] == "Completed"
    assert [metric["Value"] for metric in job["FinalMetricDataList"]] == [0.25]
