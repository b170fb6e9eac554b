"""200 queued jobs of one second on two slots, over the same scripts started by hand, two at a time."""

import statistics
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

from harness import options, report
from harness.modelyard import OWN_ENVIRONMENT, Modelyard, wait

from job_start import Jobs, printed

JOBS = 200
SLOTS = 2
OVERHEAD_LIMIT_MS = 20
SCRIPT = "import time\nprint('began at', time.time_ns())\ntime.sleep(1)\nprint('ended at', time.time_ns())\n"
# What lies between the last line of one program and the first line of the next in the same slot.
STAGES = [
    "the program's last line -> its end",
    "its end -> the next job is granted the slot",
    "the slot -> the record says Training",
    "the record -> the program is let go",
    "let go -> its first line",
]


def bare(interpreter, script):
    """Milliseconds of a slot for each script, when a pool starts them."""
    count = SLOTS * 10
    began = time.perf_counter()
    with ThreadPoolExecutor(SLOTS) as pool:
        for done in pool.map(lambda _: subprocess.run([interpreter, script], check=True, stdout=subprocess.DEVNULL), range(count)):
            del done
    return (time.perf_counter() - began) * 1000 * SLOTS / count


def all_jobs(sagemaker):
    pages = sagemaker.get_paginator("list_training_jobs").paginate(NameContains="queued-", PaginationConfig={"PageSize": 100})
    return [job for page in pages for job in page["TrainingJobSummaries"]]


def stages(described, lines):
    """The milliseconds of each of STAGES, for each slot that went from one job to another."""
    moments = []
    for job in described:
        entered = {one["Status"]: one["StartTime"].timestamp() * 1000 for one in job["SecondaryStatusTransitions"]}
        printed_at = lambda start: int(printed(lines[job["TrainingJobName"]], start)) / 1e6
        moments.append(
            {
                "granted": entered["Starting"],
                "training": entered["Training"],
                "go": job["TrainingStartTime"].timestamp() * 1000,
                "first": printed_at("began at "),
                "last": printed_at("ended at "),
                "end": job["TrainingEndTime"].timestamp() * 1000,
            }
        )
    # The slot of the first job that ends goes to the first one that had to wait, and so on.
    ending = sorted(moments, key=lambda one: one["end"])
    granted = sorted(moments, key=lambda one: one["granted"])[SLOTS:]
    rows = [
        (
            before["end"] - before["last"],
            after["granted"] - before["end"],
            after["training"] - after["granted"],
            after["go"] - after["training"],
            after["first"] - after["go"],
        )
        for before, after in zip(ending, granted)
    ]
    return list(zip(*rows))


def main():
    chosen = options.parse(__doc__)
    report.heading("Queue of jobs")
    script = chosen.folder / "train.py"
    script.write_text(SCRIPT)
    with Modelyard(chosen.modelyard, chosen.folder, "--parallel-jobs", str(SLOTS), environment=OWN_ENVIRONMENT) as server:
        jobs = Jobs(server)
        jobs.run("warm-up")
        (interpreter,) = server.data_dir.glob("environments/*/bin/python")
        by_hand = bare(interpreter, script)
        source = server.upload("bench/queued.tar.gz", {"train.py": SCRIPT.encode()})
        began = time.perf_counter()
        with ThreadPoolExecutor(8) as pool:
            names = (f"queued-{number}" for number in range(JOBS))
            list(pool.map(lambda name: jobs.sagemaker.create_training_job(**server.training_job(name, source)), names))
        queued = time.perf_counter() - began
        # Looks seldom: what is measured is the server, and it has two CPUs.
        listed = wait("all jobs have ended", lambda: ended(jobs.sagemaker), seconds=400, pause_seconds=2)
        described = [jobs.sagemaker.describe_training_job(TrainingJobName=job["TrainingJobName"]) for job in listed]
        lines = {job["TrainingJobName"]: list(jobs.lines(job["TrainingJobName"])) for job in described}
    failed = [job for job in described if job["TrainingJobStatus"] != "Completed"]
    if failed:
        raise SystemExit(f"{failed[0]['TrainingJobName']} failed: {failed[0].get('FailureReason')}")
    first = min(job["CreationTime"] for job in described)
    last = max(job["TrainingEndTime"] for job in described)
    slot = (last - first).total_seconds() * 1000 * SLOTS / JOBS
    inside = sum((job["TrainingEndTime"] - job["TrainingStartTime"]).total_seconds() for job in described) * 1000 / JOBS
    report.table(
        [f"{JOBS} jobs of one second, {SLOTS} at a time", "ms a job"],
        [
            ["slot held, from the first request to the last end", f"{slot:.0f}"],
            ["of which the program ran", f"{inside:.0f}"],
            ["limit: started by hand", f"{by_hand:.0f}"],
        ],
    )
    between = stages(described, lines)
    report.table(
        ["between two programs in a slot, ms", "median", "most"],
        [[name, f"{statistics.median(values):.1f}", f"{max(values):.1f}"] for name, values in zip(STAGES, between)],
    )
    print(f"queued in {queued:.2f} s, {JOBS / queued:.0f} jobs/s")
    report.verdict("overhead over starting by hand", slot - by_hand, OVERHEAD_LIMIT_MS, "ms a job")


def ended(sagemaker):
    listed = all_jobs(sagemaker)
    return listed if len(listed) == JOBS and all(job["TrainingJobStatus"] not in ("InProgress", "Stopping") for job in listed) else None


if __name__ == "__main__":
    main()
