"""Killed at every place where something becomes durable, and at random: nothing that was acknowledged is lost.

The places are the failpoints of `crates/failpoint`; docs/durability.md says what is guaranteed at each."""

import os
import random
import shutil
import signal
import threading
import time

import pytest

from conftest import poll
from faults import STEPS, FaultyServer, Load, points

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
    "checkpoint-restore",
    "checkpoint-stored",
    "object-export",
    "output-packed",
    "output-stored",
    "job-finish",
    "job-clean-up",
    "curve-noted",
}
# Tests of the crates kill there: they need more metrics than a client puts in a minute, a container, or a day of samples.
ELSEWHERE = {
    "metric-segment-sync",
    "metric-segment-rename",
    "metric-journal-remove",
    "metric-merged",
    "container-note",
    "usage-rotate",
}
# These have tests of their own below.
ON_THEIR_OWN = {"metric-journal-cut", "workload-end-request", "workload-task", "infra-check-sync"}
IN_DATA = [
    name for name in points() if name not in AT_START | IN_SUPERVISORS | IN_JOBS | ELSEWHERE | ON_THEIR_OWN
] + ["database-begin", "database-commit", "database-committed"]


@pytest.fixture
def faulty_server(tmp_path):
    server = FaultyServer(tmp_path)
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
    in_order = sorted(IN_JOBS, key=lambda point: not point.startswith("environment"))
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
            ended[point] = load.job(steps=80 if point == "usage-write" else STEPS)
            poll(lambda: server.was_hit(point), f"a supervisor passes {point}", 60)
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


def test_every_point_has_a_test():
    everywhere = AT_START | IN_SUPERVISORS | IN_JOBS | ELSEWHERE | ON_THEIR_OWN | set(IN_DATA)
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

    def jobs():
        while not done.is_set():
            try:
                name = load.job(steps=chance.randrange(4, 60))
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
    ended = [load.check_job(name, may_fail=True) for name in load.jobs if load.exists(name)]
    assert names and ended.count("Failed") <= supervisors_killed, f"{ended} after {supervisors_killed} killed supervisors"
    assert load.check_job(load.job()) == "Completed"
    assert set(names) <= set(load.jobs)
    load.check_nothing_is_left()
    assert not load.refusals, load.refusals
