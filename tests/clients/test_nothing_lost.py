"""Killed at every place where something becomes durable, and at random: nothing that was acknowledged is lost.

The places are the failpoints of `crates/failpoint`; docs/durability.md says what is guaranteed at each."""

import json
import os
import random
import shutil
import signal
import subprocess
import threading
import time

import pytest

from conftest import BASE_IMAGE, BINARY, Jobs, poll
from faults import STEPS, FaultyServer, Load, perhaps_its_last, points

# The server passes these before it is ready, or with the first job.
AT_START = {
    "database-migrate",
    "database-begin",
    "database-commit",
    "database-committed",
    "metric-journal-create",
    "metric-folder-sync",
    "private-file-sync",
    "private-file-rename",
    "model-host-file",
    "hook-file",
}
# A supervisor dies there, and its job ends with it; or it had not begun, and the job says so.
IN_SUPERVISORS = {
    "workload-attempt",
    "workload-attempt-sync",
    "workload-folder-sync",
    "workload-running",
    "workload-containment",
    "workload-control-group",
    "workload-exit",
    "workload-exit-written",
    "job-log-write",
    "job-log-sync",
    "usage-write",
}
# The server dies there while it runs a job.
IN_JOBS = {
    "workload-assignment",
    "supervisor-start",
    "supervisor-started",
    "workload-remove",
    "environment-mark",
    "environment-marked",
    "environment-scripts",
    "checkpoint-restore",
    "checkpoint-stored",
    "object-export",
    "output-packed",
    "output-stored",
    "job-finish",
    "job-clean-up",
    "curve-noted",
}
# Other tests kill there: they need more metrics than a client puts in a minute, a container, a day of samples, or a second store
# (test_s3_remote.py); or they are passed by what removes old things (test_retention.py).
ELSEWHERE = {
    "log-trim",
    "environment-remove",
    "metric-segment-sync",
    "metric-segment-rename",
    "metric-journal-remove",
    "metric-merged",
    "container-note",
    "usage-rotate",
    "remote-written",
}
# test_async_inference.py kills there.
IN_ASYNC_REQUESTS = {"async-stored"}
# test_transform.py kills there.
IN_TRANSFORMS = {"transform-list", "transform-write", "transform-commit", "transform-stored", "transform-outcome"}
# test_capture.py kills there.
IN_CAPTURES = {"capture-begin", "capture-write", "capture-sync", "capture-stored"}
# test_deployments.py and test_inference_components.py kill there.
IN_DEPLOYMENTS = {"deployment-moved"}
# test_serverless.py kills there.
IN_SERVERLESS = {"unpacked-model"}
# These have tests of their own below.
ON_THEIR_OWN = {"metric-journal-cut", "workload-end-request", "workload-task", "workload-go", "infra-check-sync"}
NOT_IN_DATA = AT_START | IN_SUPERVISORS | IN_JOBS | IN_ASYNC_REQUESTS | IN_TRANSFORMS | IN_CAPTURES | IN_DEPLOYMENTS | IN_SERVERLESS | ELSEWHERE | ON_THEIR_OWN
IN_DATA = [
    name for name in points() if name not in NOT_IN_DATA
] + ["database-begin", "database-commit", "database-committed"]


@pytest.fixture
def faulty_server(tmp_path, request):
    server = FaultyServer(tmp_path, *getattr(request, "param", ()))
    yield server
    if not server.has_died():
        server.kill()
    for pid, _ in server.processes():
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def load(faulty_server):
    load = Load(faulty_server.start())
    load.put("channel/input", b"1,2\n")
    return load


def test_killed_at_each_start(faulty_server):
    """A data directory that was not finished is finished by the next start."""
    for point in sorted(AT_START):
        shutil.rmtree(faulty_server.data_dir, ignore_errors=True)
        faulty_server.arm(point)
        faulty_server.start_until_it_dies()
        assert faulty_server.was_hit(point), f"no start passes {point}"
        load = Load(faulty_server.start())
        load.data()
        load.check()
        assert not load.refusals
        faulty_server.kill()


def test_killed_at_each_write_of_data(load):
    server = load.server
    load.data()
    for point in IN_DATA:
        # In the middle of a round, not always at its first write.
        for order in ("abort", "skip 3 abort") if point.startswith("database") else ("abort",):
            server.arm(point, order)
            for _ in range(6):
                load.data()
                if server.was_hit(point):
                    break
            assert server.was_hit(point), f"no round of data passes {point}"
            poll(server.has_died, f"{point} ends the server")
            server.restart()
            (server.orders / f"{point}.hit").unlink()
            load.check()
    load.check_nothing_is_left()
    assert not load.refusals


def test_killed_while_a_torn_journal_is_cut(load):
    server = load.server
    load.value()
    server.kill()
    journal = max((server.data_dir / "metrics").glob("*.journal"))
    with journal.open("ab") as file:
        file.write(b"torn")
    server.arm("metric-journal-cut")
    server.start_until_it_dies()
    assert server.was_hit("metric-journal-cut")
    server.start()
    load.connect()
    load.value()
    load.check()


def killed_in_a_job(load, point, order="abort"):
    """Runs a job through a point that ends the server."""
    server = load.server
    server.arm(point, order)
    name = f"{point}-{load.next()}"
    # It may die before it has answered.
    load.job(name)
    poll(lambda: server.was_hit(point), f"a job passes {point}", 60)
    poll(server.has_died, f"{point} ends the server")
    server.restart()
    (server.orders / f"{point}.hit").unlink()
    load.connect()
    return name


def test_killed_at_each_write_of_a_job(load):
    """The jobs go on side by side with the kills that follow."""
    # The first jobs build the environment, which is then there.
    in_order = sorted(IN_JOBS, key=lambda point: (not point.startswith("environment"), point))
    names = [killed_in_a_job(load, point) for point in in_order]
    # Each commit of a job's life: its row, its claim, its log, its steps, its end.
    names += [killed_in_a_job(load, "database-committed", f"skip {skip} abort") for skip in (1, 3, 5, 7)]
    names += [killed_in_a_job(load, "database-commit", f"skip {skip} abort") for skip in (2, 4, 6)]
    acknowledged = [name for name in names if load.jobs[name] == {STEPS}]
    assert len(acknowledged) > len(IN_JOBS) // 2
    for name in names:
        # A creation that was cut off may not have come about.
        if name in acknowledged or load.exists(name):
            assert load.check_job(name) == "Completed"
    load.check()
    load.check_nothing_is_left()
    assert not load.refusals


def test_supervisors_killed_at_each_write(load):
    """The server lives on; the job has failed, says so, and goes on from its checkpoint to the same model."""
    server = load.server
    ended = {}
    for point in points():
        if point in IN_SUPERVISORS:
            server.arm(point)
            ended[point] = name = load.job(steps=80 if point == "usage-write" else STEPS)
            poll(lambda: server.was_hit(point), f"a supervisor passes {point}", 60)
            # The server writes the report of a lost supervisor, and must not be the one that dies at the next point.
            status = lambda: load.sagemaker.describe_training_job(TrainingJobName=name)["TrainingJobStatus"]
            poll(lambda: status() in ("Failed", "Completed"), f"the job of {point} has ended", 60)
    for point, name in ended.items():
        status = load.check_job(name, may_fail=True)
        assert status == ("Completed" if point == "workload-exit-written" else "Failed"), f"{point}: {status}"
        if status == "Failed":
            again = load.job(checkpoints=name, steps=max(load.jobs[name]))
            assert load.check_job(again) == "Completed"
    load.check()
    load.check_nothing_is_left()
    assert not server.has_died()


def test_killed_while_a_stop_is_noted(load):
    server = load.server
    name = load.job(steps=100_000)
    poll(lambda: server.supervisors(), "the job runs")
    server.arm("workload-end-request")
    with perhaps_its_last(server):
        load.sagemaker.stop_training_job(TrainingJobName=name)
    poll(server.has_died, "the server dies before the supervisor is told")
    server.restart()
    load.connect()
    job = lambda: load.sagemaker.describe_training_job(TrainingJobName=name)["TrainingJobStatus"]
    poll(lambda: job() == "Stopped", "the stop is remembered")
    load.check_nothing_is_left()


def test_killed_while_a_prepared_sandbox_gets_its_task(load):
    server = load.server
    warm = {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 10, "KeepAlivePeriodInSeconds": 600}
    assert load.check_job(load.job(ResourceConfig=warm)) == "Completed"
    workloads = server.data_dir / "workloads"
    poll(lambda: any(b'"awaits_task":true' in file.read_bytes() for file in workloads.glob("job-*/workload.json")), "a sandbox waits")
    server.arm("workload-task")
    name = load.job()
    poll(server.has_died, "the server dies as it gives the job to the sandbox")
    assert server.was_hit("workload-task")
    server.restart()
    load.connect()
    assert load.check_job(name) == "Completed"
    load.check()
    load.check_nothing_is_left()


@pytest.fixture
def held_job(tmp_path):
    """A server with one place, which a job has; and a job that waits for it in its finished sandbox."""
    server = FaultyServer(tmp_path, "--parallel-jobs", "1")
    load = Load(server.start())
    load.put("channel/input", b"1,2\n")
    # Builds the environment.
    assert load.check_job(load.job()) == "Completed"
    load.job("holds", steps=100_000)
    status = lambda: load.sagemaker.describe_training_job(TrainingJobName="holds")["SecondaryStatus"]
    poll(lambda: status() == "Training", "the place is taken", 60)
    load.job("waits")
    poll(lambda: held(server, "containment.json"), "the job is held", 60)
    yield load
    if not server.has_died():
        server.kill()
    for pid, _ in server.processes():
        os.kill(pid, signal.SIGKILL)


def held(server, file):
    """The held workloads that have a file in their directory; those that were let go are held no more."""
    described = (server.data_dir / "workloads").glob("job-*/workload.json")
    waiting = [one.parent for one in described if b'"is_held":true' in one.read_bytes()]
    return [one for one in waiting if (one / file).exists() and not (one / "go").exists()]


def test_killed_while_jobs_are_held(held_job):
    """What was held ends with the server, the job is prepared again, and runs once."""
    load, server = held_job, held_job.server
    (first,) = held(server, "containment.json")
    server.kill()
    poll(lambda: (first / "exit.json").exists(), "what is held ends with the server")
    server.start()
    load.connect()
    poll(lambda: [one for one in held(server, "containment.json") if one != first], "the job is held again", 60)
    # Supervisors of held jobs may be killed, too; the job is started afresh.
    for pid, command in server.processes():
        if any(str(one) in command for one in held(server, "containment.json")) and " supervise " in command:
            os.kill(pid, signal.SIGKILL)
    load.sagemaker.stop_training_job(TrainingJobName="holds")
    assert load.check_job("waits") == "Completed"
    load.check()
    load.check_nothing_is_left()


@pytest.mark.parametrize("faulty_server", [("--parallel-jobs", "1")], indirect=True, ids=["one place"])
def test_killed_while_jobs_wait_for_one_of_another_kind(faulty_server):
    """A server that starts again admits nobody before it has found all that runs, whatever its kind."""
    server = faulty_server
    load = Load(server.start())
    load.put("channel/input", b"1,2\n")
    sleep = "import threading; threading.Event().wait()"
    load.sagemaker.create_processing_job(
        ProcessingJobName="holds",
        AppSpecification={"ImageUri": BASE_IMAGE, "ContainerEntrypoint": ["python3", "-c", sleep]},
        ProcessingResources={"ClusterConfig": {"InstanceType": "ml.t3.medium", "InstanceCount": 1, "VolumeSizeInGB": 10}},
        RoleArn=load.role,
    )
    holds = lambda: load.sagemaker.describe_processing_job(ProcessingJobName="holds")
    poll(lambda: "ProcessingStartTime" in holds(), "the place is taken", 60)
    load.job("waits")
    poll(lambda: held(server, "containment.json"), "the job is held", 60)
    for _ in range(4):
        before = held(server, "containment.json")
        server.kill()
        server.start()
        load.connect()
        # One that were admitted would be held no more.
        poll(lambda: [one for one in held(server, "containment.json") if one not in before], "the job is held again", 60)
    assert holds()["ProcessingJobStatus"] == "InProgress"
    load.sagemaker.stop_processing_job(ProcessingJobName="holds")
    assert load.check_job("waits") == "Completed"
    load.check_nothing_is_left()


@pytest.mark.parametrize("point", ["workload-go", "database-committed"])
def test_killed_while_a_held_job_is_let_go(held_job, point):
    load, server = held_job, held_job.server
    go = lambda: load.sagemaker.describe_training_job(TrainingJobName="waits")["SecondaryStatus"] != "Pending"
    if point == "workload-go":
        server.arm(point)
    with perhaps_its_last(server):
        load.sagemaker.stop_training_job(TrainingJobName="holds")
    if point == "database-committed":
        # Somewhere between the end of the one and that of the other.
        poll(go, "the job has its turn")
        server.arm(point)
    poll(server.has_died, "the server dies as it lets the job go")
    server.restart()
    load.connect()
    assert load.check_job("waits") == "Completed"
    load.check()
    load.check_nothing_is_left()


def test_supervisors_killed_as_held_jobs_are_let_go(held_job):
    """At most once: it is not known whether the program ran, so the job has failed, or it was not let go and ran afresh."""
    load, server = held_job, held_job.server
    server.arm("workload-running")
    load.sagemaker.stop_training_job(TrainingJobName="holds")
    poll(lambda: server.was_hit("workload-running"), "a supervisor dies", 60)
    load.check_job("waits", may_fail=True)
    load.check_nothing_is_left()
    assert not server.has_died()


def test_killed_while_the_disk_is_probed(load):
    server = load.server
    server.arm("infra-check-sync")
    name = load.job(InfraCheckConfig={"EnableInfraCheck": True})
    poll(server.has_died, "the server dies in the check that the job asked for")
    assert server.was_hit("infra-check-sync")
    server.restart()
    load.connect()
    assert load.check_job(name) == "Completed"
    load.check_nothing_is_left()


def test_attempts_that_are_lost_go_on_to_the_same_model(load):
    """A supervisor killed in the middle, a server killed meanwhile, an interruption: one job, one model, no step twice."""
    server = load.server
    wait_time = {"MaxRuntimeInSeconds": 300, "MaxWaitTimeInSeconds": 900}
    name = load.job(
        steps=12,
        attempts=3,
        EnableManagedSpotTraining=True,
        StoppingCondition=wait_time,
        RetryStrategy={"MaximumRetryAttempts": 3},
    )

    def stored():
        try:
            return json.loads(load.s3.get_object(Bucket="kept", Key=f"checkpoints/{name}/state.json")["Body"].read())["step"]
        except load.s3.exceptions.NoSuchKey:
            return 0

    poll(lambda: stored() > 0, "the first attempt has stored a checkpoint")
    (supervisor,) = server.supervisors()
    os.kill(supervisor, signal.SIGKILL)
    server.kill()
    server.start()
    load.connect()
    jobs = Jobs(server, "kept", load.role)

    def begun():
        return [int(line.split()[-1]) for line in jobs.lines(name) if line.startswith("begins at")]

    # What the first attempt left may be stored late.
    poll(lambda: len(begun()) == 2 and stored() > begun()[1], "the second attempt goes on")
    server.command("jobs", "interrupt", name)
    assert load.check_job(name) == "Completed"
    statuses = [transition["Status"] for transition in jobs.describe(name)["SecondaryStatusTransitions"]]
    assert statuses.count("Restarting") == 2 and statuses.count("Interrupted") == 1, statuses
    first, second, third = begun()
    assert 0 == first < second < third
    load.check_nothing_is_left()


def test_every_point_has_a_test():
    everywhere = AT_START | IN_SUPERVISORS | IN_JOBS | IN_ASYNC_REQUESTS | IN_TRANSFORMS | IN_CAPTURES | IN_DEPLOYMENTS | IN_SERVERLESS | ELSEWHERE | ON_THEIR_OWN | set(IN_DATA)
    assert set(points()) == everywhere, set(points()) ^ everywhere
    assert len(points()) > 50


def test_killed_at_random(load, pytestconfig):
    """Servers and supervisors die at any moment under jobs, uploads and checkpoints; `--kills` and `--seed` choose."""
    seed = pytestconfig.getoption("--seed") or random.randrange(1 << 32)
    kills = pytestconfig.getoption("--kills")
    print(f"to repeat: --seed {seed} --kills {kills}")
    chance = random.Random(seed)
    server = load.server
    done = threading.Event()
    failures, names, supervisors_killed = [], [], 0

    def data():
        while not done.is_set():
            try:
                load.data()
            except Exception as error:
                failures.append(error)
                return
            done.wait(0.02)

    # One whose supervisor is killed fails, or begins anew from its checkpoint; so does one that is interrupted.
    retried = {"RetryStrategy": {"MaximumRetryAttempts": 30}}
    wait_time = {"MaxRuntimeInSeconds": 300, "MaxWaitTimeInSeconds": 900}
    spot = {"EnableManagedSpotTraining": True, "StoppingCondition": wait_time, **retried}
    kinds = random.Random(seed)

    def jobs():
        while not done.is_set():
            try:
                name = load.job(steps=kinds.randrange(4, 60), **kinds.choice([{}, retried, spot]))
            except Exception as error:
                failures.append(error)
                return
            names.extend([name] if name else [])
            done.wait(0.7)

    # Its environment is not built again and again.
    assert load.check_job(load.job()) == "Completed"
    threads = [threading.Thread(target=work) for work in (data, jobs)]
    for thread in threads:
        thread.start()
    try:
        for number in range(kills):
            done.wait(chance.random() * 0.4)
            assert not failures, failures
            if names and chance.random() < 0.2:
                # It may be no spot job, or have ended.
                interrupt = [BINARY, "jobs", "interrupt", names[-1], "--data-dir", server.data_dir]
                subprocess.run(interrupt, capture_output=True, timeout=60)
            supervisors = server.supervisors()
            if supervisors and chance.random() < 0.3:
                try:
                    os.kill(chance.choice(supervisors), signal.SIGKILL)
                    supervisors_killed += 1
                except ProcessLookupError:
                    # It has just ended by itself.
                    pass
            else:
                server.kill()
                server.start()
            if number % 25 == 24:
                # A longer run is checked on its way.
                print(f"{number + 1} kills, {load.number} writes, {len(names)} jobs")
    finally:
        done.set()
        for thread in threads:
            thread.join(120)
    assert not failures, failures
    load.check()
    ended = {name: load.check_job(name, may_fail=True) for name in list(load.jobs) if load.exists(name)}
    failed = [name for name, status in ended.items() if status == "Failed"]
    assert names and len(failed) <= supervisors_killed, f"{ended} after {supervisors_killed} killed supervisors"
    for name in failed:
        assert "RetryStrategy" not in load.sagemaker.describe_training_job(TrainingJobName=name), f"{name} was not retried"
        (steps,) = load.jobs[name] - {None}
        again = load.job(checkpoints=name, steps=steps)
        assert load.check_job(again) == "Completed", f"{again} goes on from {name}"
    assert load.check_job(load.job()) == "Completed"
    assert set(names) <= set(load.jobs)
    load.check_nothing_is_left()
    assert not load.refusals, load.refusals
