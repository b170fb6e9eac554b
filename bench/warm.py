"""A job that imports scikit-learn: from CreateTrainingJob to its first line after the import, on a warm pool and without."""

import statistics
import time

from harness import options, report
from harness.modelyard import Modelyard, wait
from job_start import Jobs, bare, printed

ROUNDS = 7
LIMIT = 0.5

SCRIPT = "import time\nimport sklearn.linear_model, sklearn.ensemble\nprint('began at', time.time_ns(), flush=True)\n"
# The same image and script, which no pool of the benchmark matches: its role is another.
COLD_ROLE = "Cold"


class WarmJobs(Jobs):
    """Jobs that keep a pool, or have none."""

    def __init__(self, server):
        super().__init__(server)
        server.client("iam").create_role(RoleName=COLD_ROLE, AssumeRolePolicyDocument='{"Statement": []}')
        self.source = server.upload("bench/warm.tar.gz", {"train.py": SCRIPT.encode()})

    def began(self, name, keeps):
        """Milliseconds from the call to the script's line."""
        request = self.server.training_job(name, self.source)
        if keeps:
            request["ResourceConfig"]["KeepAlivePeriodInSeconds"] = 600
        else:
            request["RoleArn"] = request["RoleArn"].rpartition("/")[0] + "/" + COLD_ROLE
        called_at = time.time_ns()
        self.sagemaker.create_training_job(**request)
        job = wait(f"{name} has ended", lambda: self.ended(name), seconds=300)
        if job["TrainingJobStatus"] != "Completed":
            raise SystemExit(f"{name} failed: {job.get('FailureReason')}")
        return (int(printed(self.lines(name), "began at ")) - called_at) / 1e6

    def is_reused(self, name):
        return self.sagemaker.describe_training_job(TrainingJobName=name)["WarmPoolStatus"]["Status"] == "Reused"


def main():
    chosen = options.parse(__doc__)
    report.heading("Warm start")
    script = chosen.folder / "train.py"
    script.write_text(SCRIPT)
    with Modelyard(chosen.modelyard, chosen.folder, environment='packages = ["scikit-learn"]') as server:
        jobs = WarmJobs(server)
        # The first job builds the environment, for both sides; all of them find its files in the page cache.
        jobs.began("build", keeps=False)
        jobs.began("warm-first", keeps=True)
        (interpreter,) = server.data_dir.glob("environments/*/bin/python")
        bare(interpreter, script)
        warm, cold, spawned, previous = [], [], [], "warm-first"
        for index in range(ROUNDS):
            spawned.append(bare(interpreter, script))
            # Meanwhile the next sandbox of the pool is prepared: a user who takes a shorter pause waits for its end.
            cold.append(jobs.began(f"cold-{index}", keeps=False))
            warm.append(jobs.began(f"warm-{index}", keeps=True))
            if not jobs.is_reused(previous):
                raise SystemExit(f"the pool of {previous} was not reused")
            previous = f"warm-{index}"
    report.table(
        ["ms from the call to the line after the import", "median", "least", "most"],
        [
            [name, *(f"{number:.1f}" for number in (statistics.median(values), min(values), max(values)))]
            for name, values in (("cold", cold), ("on the warm pool", warm), ("bare spawn", spawned))
        ],
    )
    ratio = statistics.median(warm) / statistics.median(cold)
    print(f"warm / cold: {ratio:.2f}; warm / bare spawn: {report.ratio(statistics.median(warm), statistics.median(spawned))}")
    report.verdict(f"warm / cold, medians of {ROUNDS} jobs each", ratio, LIMIT, "of a cold start")


if __name__ == "__main__":
    main()
