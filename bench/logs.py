"""Lines per second from a job's standard output into the log store, how far a follower is behind, and PutLogEvents beside moto."""

import statistics
import subprocess
import sys
import threading
import time

import boto3
from botocore.config import Config

from harness import load, options, recording, report
from harness.modelyard import OWN_ENVIRONMENT, Modelyard, wait
from harness.processes import Process, free_port

from job_start import LOG_GROUP, Jobs, printed

LINES = 2_000_000
RATE_LIMIT = 200_000
# Lines per second of the job that is followed: what the goal asks for.
FOLLOWED_SECONDS = 5
LAG_LIMIT_SECONDS = 1
BATCH = 1000
SECONDS = 2
ROUNDS = 2

# Every line of the flood has 80 bytes; its own clock says when the first was begun and the last was written.
FLOOD = """
import os, time
block = b"".join(b"%%-79d\\n" %% number for number in range(1000))
print("began at", time.time_ns(), flush=True)
for _ in range(%d):
    view = memoryview(block)
    while view:
        view = view[os.write(1, view):]
print("written at", time.time_ns(), flush=True)
"""

# A thousand lines every five milliseconds, with the time at which they were written before them.
PACED = """
import os, time
block = b"".join(b"%%-79d\\n" %% number for number in range(999))
begin = time.monotonic()
for number in range(%d):
    time.sleep(max(0, begin + number / 200 - time.monotonic()))
    view = memoryview(b"stamp %%d\\n" %% time.time_ns() + block)
    while view:
        view = view[os.write(1, view):]
"""


def flood(server, jobs):
    """Lines per second until they are written by the job, and until the last of them can be read."""
    jobs.source = server.upload("bench/flood.tar.gz", {"train.py": (FLOOD % (LINES // 1000)).encode()})
    server.client("sagemaker").create_training_job(**server.training_job("flood", jobs.source))
    logs = server.client("logs")

    def last():
        streams = logs.describe_log_streams(logGroupName=LOG_GROUP, logStreamNamePrefix="flood/")["logStreams"]
        for stream in streams:
            page = logs.get_log_events(logGroupName=LOG_GROUP, logStreamName=stream["logStreamName"], limit=3)
            for event in page["events"]:
                if event["message"].startswith("written at "):
                    return time.time_ns(), stream["logStreamName"], int(event["message"].removeprefix("written at "))
        return None

    readable_at, stream, written_at = wait("the last line can be read", quiet(last), seconds=120, pause_seconds=0.02)
    head = logs.get_log_events(logGroupName=LOG_GROUP, logStreamName=stream, startFromHead=True, limit=100)["events"]
    began_at = int(printed((event["message"] for event in head), "began at "))
    jobs_ended(jobs, "flood")
    return LINES / (written_at - began_at) * 1e9, LINES / (readable_at - began_at) * 1e9


def quiet(look):
    """The look, with nothing for what is not there yet."""

    def looked():
        try:
            return look()
        except Exception as error:
            if "ResourceNotFound" in str(error):
                return None
            raise

    return looked


def jobs_ended(jobs, name):
    job = wait(f"{name} has ended", lambda: jobs.ended(name), seconds=120)
    if job["TrainingJobStatus"] != "Completed":
        raise SystemExit(f"{name} failed: {job.get('FailureReason')}")


def follow(server, jobs, binary):
    """Seconds between the writing of a line and its print by `modelyard logs --follow`; and the lines it printed."""
    jobs.source = server.upload("bench/paced.tar.gz", {"train.py": (PACED % (FOLLOWED_SECONDS * 200)).encode()})
    server.client("sagemaker").create_training_job(**server.training_job("paced", jobs.source))
    command = [binary, "logs", "paced", "--follow", "--data-dir", server.data_dir]
    follower = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, bufsize=1 << 20)
    lags, lines = [], 0
    guard = threading.Timer(120, follower.kill)
    guard.start()
    for line in follower.stdout:
        lines += 1
        if line.startswith(b"stamp "):
            lags.append((time.time_ns() - int(line[6:])) / 1e9)
    guard.cancel()
    if follower.wait() != 0:
        raise SystemExit("`modelyard logs --follow` failed")
    jobs_ended(jobs, "paced")
    return lags, lines


def pipe_lines_per_second(folder):
    """The limit: the same lines from the same interpreter through a pipe into a file."""
    script = folder / "flood.py"
    script.write_text(FLOOD % (LINES // 1000))
    with open(folder / "raw.log", "wb") as file:
        began = time.perf_counter()
        writer = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE)
        subprocess.run(["cat"], stdin=writer.stdout, stdout=file, check=True)
        writer.wait()
    return LINES / (time.perf_counter() - began)


def put(server, moto, folder):
    """Lines per second that PutLogEvents takes, by address and connections."""
    group, stream = "bench", "stream"
    for address in (server.address, moto):
        logs = client(address, server.connection)
        logs.create_log_group(logGroupName=group)
        logs.create_log_stream(logGroupName=group, logStreamName=stream)
    now = int(time.time() * 1000)
    events = [{"timestamp": now, "message": f"{number:<79}"} for number in range(BATCH)]
    logs = client(server.address, server.connection)
    captured = recording.capture(logs, "put_log_events", logGroupName=group, logStreamName=stream, logEvents=events)
    path, results = recording.write(folder / "put", captured), {}
    for _ in range(ROUNDS):
        for connections in (1, 16):
            for address in (server.address, moto):
                results.setdefault((connections, address), []).append(load.replay(address, path, connections, SECONDS))
    return {key: load.combined(rounds) for key, rounds in results.items()}


def client(address, connection):
    return boto3.client(
        "logs",
        endpoint_url=f"http://{address}",
        region_name=connection["region"],
        aws_access_key_id=connection["access_key_id"],
        aws_secret_access_key=connection["secret_access_key"],
        config=Config(retries={"max_attempts": 0}, read_timeout=60),
    )


def main():
    chosen = options.parse(__doc__)
    report.heading("Logs")
    port = free_port()
    moto = f"127.0.0.1:{port}"
    moto_command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", port]
    with (
        Modelyard(chosen.modelyard, chosen.folder, environment=OWN_ENVIRONMENT) as server,
        Process(moto_command, chosen.folder / "moto.log") as moto_server,
    ):
        moto_server.wait_until_answers(moto, "/moto-api/")
        jobs = Jobs(server)
        jobs.run("warm-up")
        written, readable = flood(server, jobs)
        limit = pipe_lines_per_second(chosen.folder)
        lags, lines = follow(server, jobs, chosen.modelyard)
        puts = put(server, moto, chosen.folder)
    report.table(
        [f"{LINES} lines of 80 bytes from a job", "lines/s"],
        [
            ["taken from the job", f"{written:.0f}"],
            ["readable", f"{readable:.0f}"],
            ["limit: a pipe into `cat` into a file", f"{limit:.0f}"],
        ],
    )
    kept = "PASS" if readable >= RATE_LIMIT else "OVER"
    print(f"{kept}: {readable:.0f} lines/s, limit {RATE_LIMIT}; {report.ratio(readable, limit)} of the pipe")
    print(f"followed at 200000 lines/s for {FOLLOWED_SECONDS} s: {lines} lines, median lag {statistics.median(lags):.2f} s")
    report.verdict("lag of `logs --follow`, most", max(lags), LAG_LIMIT_SECONDS, "s")
    report.table(
        [f"PutLogEvents of {BATCH} lines, lines/s", "modelyard", "moto", "ratio"],
        [
            [
                f"{connections} connection(s)",
                f"{puts[connections, server.address]['rate'] * BATCH:.0f}",
                f"{puts[connections, moto]['rate'] * BATCH:.0f}",
                report.ratio(puts[connections, server.address]["rate"], puts[connections, moto]["rate"]),
            ]
            for connections in (1, 16)
        ],
    )


if __name__ == "__main__":
    main()
