"""`modelyard clean` and log retention against the built binary: room is freed, memory stays flat, a kill leaves nothing half."""

import json
import os
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest
from botocore.exceptions import ClientError
from conftest import BINARY, Server
from faults import FaultyServer

DAY = 86_400
ACCOUNT = "123456789012"
GROUP = "/retention/group"


def clean(server, *words):
    """The rows of `modelyard clean` by kind."""
    answer = json.loads(server.command("clean", *words, "--output", "json"))
    return {row["Kind"]: row for row in answer["Kinds"]}


@pytest.fixture
def stopped_server(tmp_path):
    """A data directory that was served once; the test starts the server."""
    server = Server(tmp_path / "data").start()
    server.stop()
    yield server
    if server.process.poll() is None:
        server.stop()


@pytest.fixture
def faulty_server(tmp_path):
    server = FaultyServer(tmp_path)
    yield server
    if not server.has_died():
        server.kill()


def resident_bytes(server):
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


def test_memory_does_not_grow_with_what_is_removed(stopped_server):
    old = int(time.time() - 100 * DAY) * 1000
    filler = json.dumps({"filler": "x" * 4_000})
    with sqlite3.connect(stopped_server.data_dir / "modelyard.db") as database:
        jobs = (
            (ACCOUNT, "us-east-1", "training-job", f"retention-{number}", f"arn:retention-{number}", "Completed", filler, "{}", old)
            for number in range(20_000)
        )
        database.executemany("INSERT INTO resources VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 1, ?9, ?9)", jobs)
        events = ((ACCOUNT, filler, old) for _ in range(20_000))
        insert = "INSERT INTO events (account, region, kind, name, what, detail, at) VALUES (?, 'us-east-1', 'k', 'n', 'w', ?, ?)"
        database.executemany(insert, events)
    database.close()
    server = stopped_server.start()
    before = resident_bytes(server)
    told = clean(server, "jobs", "events", "--dry-run", "--older-than-days", "90")
    assert told["jobs"]["Items"] == 20_000 and told["jobs"]["Bytes"] > 80_000_000
    done = clean(server, "jobs", "events", "--older-than-days", "90")
    assert done["jobs"] == told["jobs"]
    # Removed jobs are events, too, but young ones.
    assert done["events"]["Items"] >= 19_999 and done["events"]["Bytes"] > 79_000_000
    grown = resident_bytes(server) - before
    assert grown < 48_000_000, f"{grown} bytes more after 160 MB were removed"
    assert clean(server, "jobs", "--older-than-days", "90")["jobs"]["Items"] == 0
    assert server.client("sagemaker").list_training_jobs(NameContains="retention")["TrainingJobSummaries"] == []


def test_the_room_of_old_log_events_is_freed_under_a_follower(own_server):
    logs = own_server.client("logs")
    logs.create_log_group(logGroupName=GROUP)
    logs.create_log_stream(logGroupName=GROUP, logStreamName="s")
    now = int(time.time() * 1000)

    def put(at, count):
        for _ in range(count):
            events = [{"timestamp": at, "message": "x" * 1_000}] * 900
            logs.put_log_events(logGroupName=GROUP, logStreamName="s", logEvents=events)

    put(now - 3 * DAY * 1000, 5)
    follower = logs.get_log_events(logGroupName=GROUP, logStreamName="s", limit=1)["nextForwardToken"]
    put(now - 1000, 1)
    (file,) = (own_server.data_dir / "logs").rglob("*.log")
    before = file.stat()
    assert before.st_blocks * 512 > 5_000_000
    with pytest.raises(ClientError) as refused:
        logs.put_retention_policy(logGroupName=GROUP, retentionInDays=4)
    assert refused.value.response["Error"]["Code"] == "InvalidParameterException"
    logs.put_retention_policy(logGroupName=GROUP, retentionInDays=1)
    assert logs.describe_log_groups(logGroupNamePrefix=GROUP)["logGroups"][0]["retentionInDays"] == 1
    shown = own_server.command("clean", "logs", "--dry-run")
    assert "WOULD GO" in shown and "MiB would be freed; nothing was removed" in shown, shown
    assert file.stat().st_blocks == before.st_blocks
    freed = clean(own_server, "logs")["logs"]["Bytes"]
    after = file.stat()
    assert freed > 4_500_000 and after.st_size == before.st_size
    assert before.st_blocks * 512 - after.st_blocks * 512 > 4_000_000
    page = logs.get_log_events(logGroupName=GROUP, logStreamName="s", nextToken=follower, startFromHead=True)
    assert len(page["events"]) == 900
    head = logs.get_log_events(logGroupName=GROUP, logStreamName="s", startFromHead=True)
    assert len(head["events"]) == 900
    assert logs.describe_log_groups(logGroupNamePrefix=GROUP)["logGroups"][0]["storedBytes"] < 1_500_000
    logs.delete_retention_policy(logGroupName=GROUP)
    assert "retentionInDays" not in logs.describe_log_groups(logGroupNamePrefix=GROUP)["logGroups"][0]


def test_a_kill_leaves_nothing_half(faulty_server):
    server = faulty_server.start()
    logs = server.client("logs")
    logs.create_log_group(logGroupName=GROUP)
    logs.create_log_stream(logGroupName=GROUP, logStreamName="s")
    old = int((time.time() - 3 * DAY) * 1000)
    logs.put_log_events(logGroupName=GROUP, logStreamName="s", logEvents=[{"timestamp": old, "message": "old"}])
    environment = server.data_dir / "environments" / "0123"
    (environment / "bin").mkdir(parents=True)
    (environment / "bin" / "python").write_text("x" * 10_000)
    mark = environment / "modelyard-ready.json"
    mark.write_text("{}")
    environment.with_suffix(".lock").touch()
    os.utime(mark, (0, 0))
    for point, kind in [("log-trim", "logs"), ("environment-remove", "environments")]:
        server.arm(point)
        words = [BINARY, "clean", kind, "--older-than-days", "1", "--data-dir", server.data_dir]
        assert subprocess.run(words, capture_output=True, timeout=60).returncode != 0
        assert server.was_hit(point), point
        server.process.wait(30)
        server.restart()
    logs = server.client("logs")
    read = lambda: logs.get_log_events(logGroupName=GROUP, logStreamName="s", startFromHead=True)["events"]
    assert [event["message"] for event in read()] == ["old"]
    assert environment.exists() and not mark.exists(), "half an environment is none"
    os.utime(environment, (0, 0))
    done = clean(server, "logs", "environments", "--older-than-days", "1")
    assert done["logs"]["Items"] == 1 and done["environments"]["Items"] == 1
    assert read() == [] and not environment.exists()


def test_settings_say_what_goes(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "modelyard.toml").write_text("[retention]\njobs_days = 0\n")
    done = subprocess.run([BINARY, "serve", "--data-dir", data], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "retention.jobs_days must be from 1 to 36500" in done.stderr
