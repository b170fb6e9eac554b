"""From CreateTrainingJob to the first line of user code, over a bare spawn of the same interpreter."""

import statistics
import subprocess
import time

from harness import options, report
from harness.modelyard import OWN_ENVIRONMENT, Modelyard, wait

JOBS = 20
OVERHEAD_LIMIT_MS = 100
LOG_GROUP = "/aws/sagemaker/TrainingJobs"

# Its first line is what is timed; the wall clock, as two processes share no other.
SCRIPT = "import time; print('began at', time.time_ns(), flush=True)\n"


class Jobs:
    """Starts jobs one by one on a server."""

    def __init__(self, server):
        self.server = server
        self.source = server.upload("bench/sourcedir.tar.gz", {"train.py": SCRIPT.encode()})
        self.sagemaker, self.logs = server.client("sagemaker"), server.client("logs")

    def run(self, name):
        """Milliseconds until the call returned, until the script's first line, and until the job was over."""
        request = self.server.training_job(name, self.source)
        called_at = time.time_ns()
        self.sagemaker.create_training_job(**request)
        acknowledged_at = time.time_ns()
        job = wait(f"{name} has ended", lambda: self.ended(name))
        if job["TrainingJobStatus"] != "Completed":
            raise SystemExit(f"{name} failed: {job.get('FailureReason')}")
        ended_at = job["TrainingEndTime"].timestamp() * 1e9
        began_at = int(printed(self.lines(name), "began at "))
        return [(moment - called_at) / 1e6 for moment in (acknowledged_at, began_at, ended_at)]

    def ended(self, name):
        job = self.sagemaker.describe_training_job(TrainingJobName=name)
        return job if job["TrainingJobStatus"] in ("Completed", "Failed", "Stopped") else None

    def lines(self, name):
        streams = self.logs.describe_log_streams(logGroupName=LOG_GROUP, logStreamNamePrefix=name + "/")["logStreams"]
        for stream in streams:
            page = self.logs.get_log_events(logGroupName=LOG_GROUP, logStreamName=stream["logStreamName"], startFromHead=True)
            yield from (event["message"] for event in page["events"])


def printed(lines, start):
    """The rest of the line that starts so."""
    return next(line.removeprefix(start) for line in lines if line.startswith(start))


def bare(interpreter, script):
    """Milliseconds from spawn to the script's first line."""
    spawned_at = time.time_ns()
    done = subprocess.run([interpreter, script], check=True, capture_output=True, text=True)
    return (int(printed(done.stdout.splitlines(), "began at ")) - spawned_at) / 1e6


def main():
    chosen = options.parse(__doc__)
    report.heading("Job start")
    script = chosen.folder / "train.py"
    script.write_text(SCRIPT)
    with Modelyard(chosen.modelyard, chosen.folder, environment=OWN_ENVIRONMENT) as server:
        jobs = Jobs(server)
        # The first job builds the environment; both sides warm the file cache.
        jobs.run("warm-up")
        (interpreter,) = server.data_dir.glob("environments/*/bin/python")
        bare(interpreter, script)
        measured, spawned = [], []
        for index in range(JOBS):
            spawned.append(bare(interpreter, script))
            measured.append(jobs.run(f"job-{index}"))
    acknowledged, began, ended = ([row[column] for row in measured] for column in range(3))
    report.table(
        ["ms from the call", "median", "least", "most"],
        [
            [name, *(f"{number:.1f}" for number in (statistics.median(values), min(values), max(values)))]
            for name, values in (
                ("CreateTrainingJob returned", acknowledged),
                ("first line of user code", began),
                ("script's end was seen", ended),
                ("limit: bare spawn, first line", spawned),
            )
        ],
    )
    overhead = statistics.median(began) - statistics.median(spawned)
    print(f"modelyard / bare spawn: {report.ratio(statistics.median(began), statistics.median(spawned))}")
    report.verdict(f"overhead, median of {JOBS} jobs", overhead, OVERHEAD_LIMIT_MS, "ms")


if __name__ == "__main__":
    main()
