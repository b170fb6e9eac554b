"""DescribeTrainingJob and CreateTrainingJob (acknowledged and durable) requests per second, beside moto's server."""

import os
import sys
import time

from harness import load, options, recording, report
from harness.modelyard import Modelyard, wait
from harness.processes import Process, free_port

CONNECTIONS = (1, 16)
ROUNDS = 2
SECONDS = 2
# More than either server can take in one round.
CREATES = {1: 4000, 16: 12000}

# Holds the only slot, so that the created jobs stay in the queue and no job competes for the CPU.
SCRIPT = b"import time; print('waiting', flush=True); time.sleep(240)\n"


def disk_syncs_per_second(folder, seconds=2):
    """Appends of one page, each forced to the disk by one thread: the limit of durable writes one after another."""
    path, page = folder / "syncs", os.urandom(4096)
    with open(path, "wb", buffering=0) as file:
        count, started = 0, time.perf_counter()
        while time.perf_counter() - started < seconds:
            file.write(page)
            os.fdatasync(file.fileno())
            count += 1
        elapsed = time.perf_counter() - started
    path.unlink()
    return count / elapsed


def occupy(server):
    """Starts the job that holds the slot; returns its name and the archive that the other jobs name, too."""
    source = server.upload("bench/sourcedir.tar.gz", {"train.py": SCRIPT})
    sagemaker = server.client("sagemaker")
    sagemaker.create_training_job(**server.training_job("occupied", source))
    wait("the first job runs", lambda: sagemaker.describe_training_job(TrainingJobName="occupied")["SecondaryStatus"] == "Training")
    return source


def measure(server, moto, folder, source):
    """Results by operation, connections and server."""
    sagemaker = server.client("sagemaker")
    create = recording.capture(sagemaker, "create_training_job", **server.training_job("NAME-OF-JOB", source))
    results = {}
    # moto must know the job that is described; the same bytes go to both.
    first = recording.write_many(folder / "first", create, "sagemaker", server.connection, [("NAME-OF-JOB", "occupied")])
    load.replay(moto, first, 1, SECONDS, once=True)
    for attempt in range(ROUNDS):
        describe = recording.capture(sagemaker, "describe_training_job", TrainingJobName="occupied")
        describe = recording.write(folder / "describe", describe)
        for connections in CONNECTIONS:
            names = (("NAME-OF-JOB", f"job-{attempt}-{connections}-{index}") for index in range(CREATES[connections]))
            creates = recording.write_many(folder / "creates", create, "sagemaker", server.connection, names)
            for address in (server.address, moto):
                for operation, requests in (("DescribeTrainingJob", describe), ("CreateTrainingJob", creates)):
                    once = operation == "CreateTrainingJob"
                    result = load.replay(address, requests, connections, SECONDS, once)
                    if once and result["requests"] == CREATES[connections]:
                        print(f"note: {address} took all {CREATES[connections]} creates in {result['seconds']:.2f} s", flush=True)
                    results.setdefault((operation, connections, address), []).append(result)
    return {key: load.combined(rounds) for key, rounds in results.items()}


def main():
    chosen = options.parse(__doc__)
    report.heading("Control plane")
    port = free_port()
    moto = f"127.0.0.1:{port}"
    moto_command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", port]
    with (
        Modelyard(chosen.modelyard, chosen.folder, "--parallel-jobs", "1") as server,
        Process(moto_command, chosen.folder / "moto.log") as moto_server,
        load.Bare(chosen.folder, "{}") as bare,
    ):
        moto_server.wait_until_answers(moto, "/moto-api/")
        source = occupy(server)
        syncs = disk_syncs_per_second(chosen.folder)
        results = measure(server, moto, chosen.folder, source)
        limits = {connections: load.replay(bare.address, chosen.folder / "describe", connections, SECONDS) for connections in CONNECTIONS}
        kept = count_jobs(server)
    rows = []
    for operation in ("DescribeTrainingJob", "CreateTrainingJob"):
        for connections in CONNECTIONS:
            ours, theirs = (results[operation, connections, address] for address in (server.address, moto))
            rows.append(
                [
                    f"{operation}, {connections} connection{'s' * (connections > 1)}",
                    *(f"{result['rate']:.0f}" for result in (ours, theirs)),
                    report.ratio(ours["rate"], theirs["rate"]),
                    *(f"{result[key]:.2f}" for result in (ours, theirs) for key in ("p50_ms", "p99_ms")),
                ]
            )
    report.table(["requests/s", "modelyard", "moto", "ratio", "p50 ms", "p99 ms", "moto p50", "moto p99"], rows)
    for connections, limit in limits.items():
        print(f"limit: bare HTTP server, {connections} connection(s): {limit['requests'] / limit['seconds']:.0f} requests/s")
    print(f"limit: {syncs:.0f} forced appends/s by one thread on this disk; moto keeps everything in memory and checks no signature")
    created = sum(result["requests"] for (operation, _, address), result in results.items() if operation.startswith("Create") and address == server.address)
    print(f"after the run the server holds {kept} jobs; {created} creates were acknowledged and one held the slot")
    if kept != created + 1:
        raise SystemExit("acknowledged creates are missing")


def count_jobs(server):
    """Jobs that the server lists."""
    pages = server.client("sagemaker").get_paginator("list_training_jobs").paginate(PaginationConfig={"PageSize": 100})
    return sum(len(page["TrainingJobSummaries"]) for page in pages)


if __name__ == "__main__":
    main()
