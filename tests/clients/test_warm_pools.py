"""Warm pools: reuse through the SDK, nothing of one job to be seen in the next, and what the next finds prepared."""

import json
import os
import pathlib
import signal
import textwrap

import pytest

from conftest import BASE_IMAGE, Jobs, poll

WARM = {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 10, "KeepAlivePeriodInSeconds": 600}


def pool(jobs, name):
    return jobs.describe(name).get("WarmPoolStatus", {})


@pytest.fixture
def warm(jobs):
    """Runs jobs one after the other; the pools that are left go when the test ends."""
    names = []

    def run(name, script, **request):
        names.append(name)
        job = jobs.run(name, script, ResourceConfig=dict(WARM), **request)
        return job, [line for line in jobs.lines(name) if not line.startswith("modelyard:")]

    yield run
    for name in names:
        if pool(jobs, name).get("Status") == "Available":
            jobs.sagemaker.update_training_job(TrainingJobName=name, ResourceConfig={"KeepAlivePeriodInSeconds": 0})


def prepared(server):
    """Sandboxes that have imported what they were told and wait."""
    folders = (server.data_dir / "workloads").glob("job-*")
    return [one for one in folders if b'"awaits_task":true' in (one / "workload.json").read_bytes() and not (one / "task.json").exists()]


def wait_for_sandbox(server):
    poll(lambda: prepared(server), "a sandbox is prepared")


def test_the_sdk_reuses_and_ends_a_pool(server, jobs, run_python, tmp_path):
    (tmp_path / "train.py").write_text("import os\nprint('trained as', os.environ['SM_HP_ROUND'])\n")
    (tmp_path / "fit.py").write_text(
        textwrap.dedent("""
        import sys

        from sagemaker import get_execution_role
        from sagemaker.estimator import Estimator

        jobs = []
        for number in (1, 2):
            estimator = Estimator(
                image_uri=sys.argv[1], entry_point="train.py", role=get_execution_role(), instance_type="ml.m5.large",
                instance_count=1, keep_alive_period_in_seconds=1200, hyperparameters={"round": number},
            )
            estimator.fit()
            jobs.append(estimator.latest_training_job.name)
        estimator.sagemaker_session.update_training_job(jobs[1], resource_config={"KeepAlivePeriodInSeconds": 0})
        print("jobs", *jobs)
        """)
    )
    output = run_python("fit.py", BASE_IMAGE)
    assert "trained as 1" in output and "trained as 2" in output
    first, second = output.split("jobs ")[-1].split()
    assert pool(jobs, first)["Status"] == "Reused"
    assert pool(jobs, first)["ReusedByJob"] == second
    assert pool(jobs, second)["Status"] == "Terminated"
    listed = jobs.sagemaker.list_training_jobs(WarmPoolStatusEquals="Reused", NameContains=first)
    assert [one["WarmPoolStatus"]["ReusedByJob"] for one in listed["TrainingJobSummaries"]] == [second]


# What a job can leave behind, and what it can see of another.
LEAVES = """
import os, subprocess, sys, wave
secret = os.environ["SECRET"]
for folder in ("/tmp", "/dev/shm", "/run", "/opt/ml", "/opt/ml/code", "/opt/ml/.environment", "/opt/ml/input/data", os.environ["HOME"]):
    with open(f"{folder}/left-behind", "w") as file:
        file.write(secret)
wave.left_behind = secret
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", secret], start_new_session=True)
"""

LOOKS = """
import os, sys
print("imported ahead:", "wave" in sys.modules)
import wave
print("same module:", hasattr(wave, "left_behind"))
found = []
for top in ("/tmp", "/dev/shm", "/run", "/opt/ml", "/var", os.environ["HOME"]):
    for directory, _, files in os.walk(top):
        found += [os.path.join(directory, name) for name in files if name == "left-behind"]
print("files:", found)
words = []
for pid in filter(str.isdigit, os.listdir("/proc")):
    for part in ("cmdline", "environ"):
        try:
            words.append(open(f"/proc/{pid}/{part}", "rb").read())
        except OSError:
            pass
print("processes:", b"s3cr3t" in b" ".join(words), "environment:", "s3cr3t" in str(dict(os.environ)))
with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", 0) as memory:
    writable = [line.split()[0] for line in maps if " rw" in line and "[v" not in line]
    hits = 0
    for start, end in (map(lambda text: int(text, 16), place.split("-")) for place in writable):
        try:
            memory.seek(start)
            hits += memory.read(end - start).count(b"s3cr3t" + b"-of-the-first")
        except OSError:
            pass
# The words of this script are the job's own.
print("memory:", hits)
"""


def test_nothing_of_one_job_is_seen_by_the_next(server, jobs, warm):
    warm("pool-leaves", LEAVES, HyperParameters={"round": "1"}, Environment={"SECRET": "s3cr3t-" + "of-the-first"})
    wait_for_sandbox(server)
    # Other variables, so that it gets a fresh interpreter; and again without, for the one that was prepared after it.
    _, lines = warm("pool-looks", LOOKS, HyperParameters={"round": "2"})
    assert pool(jobs, "pool-leaves")["ReusedByJob"] == "pool-looks"
    assert lines == [
        "imported ahead: False",
        "same module: False",
        "files: []",
        "processes: False environment: False",
        "memory: 1",
    ]
    wait_for_sandbox(server)
    _, lines = warm("pool-looks-again", LOOKS, HyperParameters={"round": "3"})
    assert lines == [
        "imported ahead: True",
        "same module: False",
        "files: []",
        "processes: False environment: False",
        "memory: 1",
    ]


LIKE_A_FRESH_ONE = """
import os, sys
import helper
class Thing: pass
import pickle
print(sys.argv, __name__, __file__, os.getcwd(), sys.path[0], sys.executable, sys.prefix)
print(pickle.loads(pickle.dumps(Thing())).__class__ is Thing, sys.modules["__main__"].Thing is Thing, helper.who)
print(sorted(os.environ))
print(os.environ["PWD"])
print(open("/opt/ml/input/data/train/a.csv").read(), os.environ["SM_CHANNEL_TRAIN"], sys.stdin.read() == "")
print(os.stat("/opt/ml").st_uid == os.getuid(), sorted(os.listdir("/opt/ml")))
open("/opt/ml/model/weights", "w").write("w")
raise ValueError("on purpose")
"""


def test_a_prepared_start_is_like_any_other(server, jobs, bucket, warm):
    jobs.s3.put_object(Bucket=bucket, Key="pool/a.csv", Body=b"1,2")
    source = {"S3DataType": "S3Prefix", "S3Uri": f"s3://{bucket}/pool"}
    channels = [{"ChannelName": "train", "DataSource": {"S3DataSource": source}}]
    told = []
    for name in ("pool-cold", "pool-warm"):
        job, lines = warm(
            name,
            LIKE_A_FRESH_ONE,
            extra_files={"helper.py": f"who = {name!r}"},
            HyperParameters={"rate": "0.1"},
            InputDataConfig=channels,
        )
        told.append([line.replace(name, "NAME") for line in lines])
        assert job["TrainingJobStatus"] == "Failed" and "ValueError: on purpose" in job["FailureReason"]
        assert "warm_start" not in "".join(lines)
        wait_for_sandbox(server)
    assert pool(jobs, "pool-cold")["ReusedByJob"] == "pool-warm"
    assert told[0] == told[1]
    # The second was no fresh interpreter.
    _, lines = warm("pool-third", "import sys; print('pickle' in sys.modules and 'wave' not in sys.modules)")
    assert lines == ["True"]


def test_what_the_sandbox_was_not_made_for_starts_afresh(server, jobs, warm):
    warm("pool-plain", "import wave")
    wait_for_sandbox(server)
    # A script that sets variables before it imports must be the first to import.
    _, lines = warm("pool-sets", "import os, sys\nos.environ['OMP_NUM_THREADS'] = '1'\nprint('wave' in sys.modules)\n")
    assert lines == ["False"]
    wait_for_sandbox(server)
    entry = {"ContainerEntrypoint": ["/bin/sh", "-c", "echo $0 $TRAINING_JOB_NAME"], "ContainerArguments": ["argument"]}
    _, lines = warm("pool-entry", "", AlgorithmSpecification=entry)
    assert lines == ["argument pool-entry"]
    assert pool(jobs, "pool-sets")["ReusedByJob"] == "pool-entry"


def descendants(pid):
    children = map(int, pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return [found for child in children for found in (child, *descendants(child))]


def test_a_sandbox_that_dies_as_it_gets_its_job_is_replaced(server, jobs, warm):
    warm("pool-dying", "import wave")
    wait_for_sandbox(server)
    (folder,) = prepared(server)
    # The folder comes first, then the process.
    poll((folder / "attempt.json").exists, "the sandbox's supervisor runs")
    supervisor = json.loads((folder / "attempt.json").read_text())["supervisor_pid"]
    poll(lambda: descendants(supervisor), "the sandbox's processes run")
    # It looks alive until its supervisor may look.
    os.kill(supervisor, signal.SIGSTOP)
    try:
        for pid in reversed(descendants(supervisor)):
            os.kill(pid, signal.SIGKILL)
        jobs.start("pool-afresh", "print('ran')", ResourceConfig=dict(WARM))
        poll((folder / "task.json").exists, "the job is given to the sandbox")
    finally:
        os.kill(supervisor, signal.SIGCONT)
    job = jobs.wait("pool-afresh")
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    assert "ran" in jobs.lines("pool-afresh") and pool(jobs, "pool-dying")["ReusedByJob"] == "pool-afresh"
    messages = [transition["StatusMessage"] for transition in job["SecondaryStatusTransitions"]]
    assert any("the sandbox that its warm pool had prepared was lost" in message for message in messages), messages
    jobs.sagemaker.update_training_job(TrainingJobName="pool-afresh", ResourceConfig={"KeepAlivePeriodInSeconds": 0})


def test_a_pool_outlives_a_killed_server(own_server):
    role = own_server.client("iam").get_role(RoleName="ModelyardExecutionRole")["Role"]["Arn"]
    own_server.client("s3").create_bucket(Bucket="pools")
    jobs = Jobs(own_server, "pools", role)
    jobs.run("before", "import wave", ResourceConfig=WARM)
    wait_for_sandbox(own_server)
    own_server.kill()
    own_server.start()
    assert pool(jobs, "before")["Status"] == "Available"
    poll(lambda: not prepared(own_server), "what the killed server had prepared is gone")
    jobs.run("after", "import wave", ResourceConfig=WARM)
    assert pool(jobs, "before")["ReusedByJob"] == "after"
    jobs.sagemaker.update_training_job(TrainingJobName="after", ResourceConfig={"KeepAlivePeriodInSeconds": 0})
    assert pool(jobs, "after")["Status"] == "Terminated"
    poll(lambda: not prepared(own_server), "the sandbox goes with its pool")
