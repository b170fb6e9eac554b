"""A disk that is full, read-only, or takes half a write: told in plain words, nothing damaged, and work goes on when it is over."""

import os
import subprocess

import botocore.exceptions
import pytest

from conftest import Jobs, poll
from faults import FaultyServer, Load, points
from test_bombs import fails, zeros

SMALL_BYTES = 48 << 20


@pytest.fixture
def server(tmp_path):
    server = FaultyServer(tmp_path)
    yield server
    if server.process and not server.has_died():
        server.kill()
    for pid, _ in server.processes():
        os.kill(pid, 9)


@pytest.fixture
def small_disk(tmp_path):
    """A small file system of its own; the tests that need one run where they may mount."""
    path = tmp_path / "disk"
    path.mkdir()
    size = f"size={SMALL_BYTES}"
    if subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", path], capture_output=True).returncode:
        pytest.skip("this user may not mount file systems")
    yield path
    subprocess.run(["umount", "--lazy", path], check=True)


def refused(call):
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        call()
    return caught.value.response["Error"], caught.value.response["ResponseMetadata"]["HTTPStatusCode"]


def says_full(call):
    error, status = refused(call)
    assert status == 503 and error["Code"] == "ServiceUnavailable" and "disk of the data directory is full" in error["Message"], error


def test_errors_of_the_disk_at_each_write_of_data(server):
    """Each write fails once for want of space, half done where it can be: nobody is told that it was made, and nothing is torn."""
    load = Load(server.start())
    load.put("channel/input", b"1,2\n")
    load.data()
    names = [name for name in points() if name.startswith(("object-", "database-", "bucket-row", "log-append", "metric-journal-"))]
    cannot_fail = {"object-row", "object-replaced", "object-remove", "database-committed"}
    not_in_data = {"object-export", "database-migrate", "metric-journal-create", "metric-journal-cut", "metric-journal-remove"}
    for point in names:
        if point in cannot_fail | not_in_data:
            continue
        may_be_short = point in ("object-write", "log-append", "metric-journal-write")
        for order in ("short", "error 28", "error 30") if may_be_short else ("error 28", "error 30"):
            server.arm(point, order)
            before = len(load.refusals)
            for _ in range(4):
                load.data()
                if server.was_hit(point):
                    break
            assert server.was_hit(point), f"no round of data passes {point}"
            (server.orders / f"{point}.hit").unlink()
            load.check()
            # Multipart uploads that break off are not counted; whatever is answered is the disk's fault in words.
            for error in load.refusals[before:]:
                message = error.response["Error"]["Message"]
                assert "disk of the data directory is full" in message or "is read-only" in message, f"{point}: {error}"
    assert not server.has_died() and load.refusals
    before = len(load.refusals)
    load.data()
    assert len(load.refusals) == before, "all is well again"
    # What a failed rename or commit left is swept by a start.
    server.kill()
    server.start()
    load.check()
    load.check_nothing_is_left()


def test_a_full_disk(server, small_disk):
    server.data_dir = small_disk / "data"
    load = Load(server.start())
    load.put("channel/input", b"1,2\n")
    load.data()
    ballast = small_disk / "ballast"

    def fill():
        with ballast.open("ab", buffering=0) as file:
            for size in (1 << 20, 4096, 1):
                try:
                    while file.write(b"\0" * size) == size:
                        pass
                except OSError:
                    pass

    fill()
    for attempt in range(3):
        says_full(lambda: load.s3.put_object(Bucket="kept", Key="again", Body=b"x" * 100_000))
        says_full(lambda: load.s3.create_bucket(Bucket="no-room"))
        # The database's log has some room left within its own file, and then none.
        for number in range(2000):
            name = f"no-room-{attempt}-{number}"
            try:
                load.logs.create_log_group(logGroupName=name)
            except load.logs.exceptions.ClientError as error:
                assert "disk of the data directory is full" in error.response["Error"]["Message"], error
                break
        else:
            pytest.fail("a full disk takes no end of log groups")
    assert load.s3.get_object(Bucket="kept", Key="channel/input")["Body"].read() == b"1,2\n", "reading goes on"
    load.check()
    assert not server.has_died()
    ballast.unlink()
    load.data()
    load.check()
    assert not load.refusals
    # Full again while it dies, and at its start: it says why it does not start, and starts when there is room.
    fill()
    server.kill()
    try:
        server.start()
    except pytest.fail.Exception:
        log = server.log.read_text()
        assert "full" in log or "No space left" in log, log[-2000:]
    ballast.unlink()
    server.restart()
    load.check()


def test_a_job_on_a_full_disk(server, tmp_path):
    """What fails a job for want of space is on its card; the job that follows is not the worse for it."""
    load = Load(server.start())
    load.put("channel/input", b"1,2\n")
    assert load.check_job(load.job()) == "Completed"
    jobs = Jobs(server, "kept", load.role)
    reasons = {}
    for point in ("object-export", "checkpoint-restore", "workload-assignment", "workload-control-group"):
        server.arm(point, "error 28")
        name = load.job()
        job = jobs.wait(name)
        assert server.was_hit(point), point
        reasons[point] = job.get("FailureReason", "")
        assert job["TrainingJobStatus"] == "Failed" and "No space left on device" in reasons[point], f"{point}: {job}"
        assert "disk_full" in server.command("jobs", "why", name), point
    # These are no fault of the job, and pass: it is completed all the same.
    for point in ("job-finish", "workload-exit", "output-packed", "object-sync", "curve-noted"):
        # Armed before the job, which may be through before this process has its next turn; its source archive passes the object's.
        server.arm(point, "skip 1 error 28" if point == "object-sync" else "error 28")
        name = load.job()
        assert load.check_job(name) == "Completed", point
        # The last values of a curve are read after the end.
        poll(lambda: server.was_hit(point), f"a job passes {point}")
        (server.orders / f"{point}.hit").unlink()
    load.check()
    load.check_nothing_is_left()


def test_an_archive_larger_than_the_disk(server, small_disk):
    """It takes no more than its share, and the server goes on."""
    server.data_dir = small_disk / "data"
    load = Load(server.start())
    jobs = Jobs(server, "kept", load.role)
    reason = fails(jobs, "larger", zeros(("train.py", 1 << 30)))
    assert "nine tenths of what the disk has left" in reason, reason
    load.data()
    assert not load.refusals
    load.check()
    load.check_nothing_is_left()


def test_a_read_only_file_system(server, small_disk):
    server.data_dir = small_disk / "data"
    load = Load(server.start())
    load.data()
    server.kill()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(pytest.fail.Exception):
        server.start()
    assert "read-only" in server.log.read_text().lower(), server.log.read_text()
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    server.start()
    load.check()
    load.data()
    assert not load.refusals
