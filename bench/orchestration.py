"""What a step costs beside its program: a chain and a fan-out of steps that do nothing, beside kfp's local runner and Metaflow."""

import json
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from harness import environments, options, report
from harness.modelyard import SKLEARN_IMAGE, Modelyard, wait

CHAIN = 20
WIDTH = 100
SLOTS = 2
LIMIT_MS = 50
PEERS = ["kfp==2.15.2", "docker==7.2.0", "metaflow==2.19.39"]
# The program of every step. Its one line is when it began.
PROGRAM = "import time; print(time.time_ns())"
# What lies between the end of one step and the end of the next.
STAGES = [
    "its turn -> the step is recorded",
    "recorded -> its job is created",
    "created -> the job's sandbox is begun",
    "sandbox -> its program's first line",
    "first line -> the sandbox has ended",
    "ended -> the job's end is recorded",
    "job's end -> the step's end is recorded",
]


def bare(count, slots):
    """Milliseconds a step when somebody just starts the interpreter."""
    start = lambda _: subprocess.run([sys.executable, "-c", PROGRAM], check=True, stdout=subprocess.DEVNULL)
    started = time.perf_counter()
    with ThreadPoolExecutor(slots) as pool:
        list(pool.map(start, range(count)))
    return (time.perf_counter() - started) * 1000 / count


def definition(role, count, chained):
    """A pipeline of processing steps, one after another or all at once."""
    steps = []
    for index in range(count):
        cluster = {"InstanceType": "ml.t3.medium", "InstanceCount": 1, "VolumeSizeInGB": 1}
        arguments = {
            "ProcessingResources": {"ClusterConfig": cluster},
            "AppSpecification": {"ImageUri": SKLEARN_IMAGE, "ContainerEntrypoint": [sys.executable, "-c", PROGRAM]},
            "RoleArn": role,
        }
        step = {"Name": f"S{index}", "Type": "Processing", "Arguments": arguments}
        if chained and index:
            step["DependsOn"] = [f"S{index - 1}"]
        steps.append(step)
    return json.dumps({"Version": "2020-12-01", "Metadata": {}, "Parameters": [], "Steps": steps})


class Execution:
    """An execution of a pipeline of such steps, from the request to its end."""

    def __init__(self, server, name, count, chained):
        self.server, self.sagemaker, self.name, self.count = server, server.client("sagemaker"), name, count
        token = lambda word: f"{name}-{word}".ljust(32, "x")
        self.sagemaker.create_pipeline(
            PipelineName=name,
            RoleArn=server.role,
            PipelineDefinition=definition(server.role, count, chained),
            ClientRequestToken=token("create"),
        )
        self.started = time.time()
        started = self.sagemaker.start_pipeline_execution(PipelineName=name, ClientRequestToken=token("start"))
        self.arn = started["PipelineExecutionArn"]
        # Looks seldom: what is measured is the server.
        described = wait(f"{name} has ended", self.ended, seconds=300, pause_seconds=0.25)
        if described["PipelineExecutionStatus"] != "Succeeded":
            raise SystemExit(f"{name}: {described.get('FailureReason')}")
        listed = self.sagemaker.get_paginator("list_pipeline_execution_steps")
        pages = listed.paginate(PipelineExecutionArn=self.arn, SortOrder="Ascending")
        self.steps = [step for page in pages for step in page["PipelineExecutionSteps"]]

    def ended(self):
        described = self.sagemaker.describe_pipeline_execution(PipelineExecutionArn=self.arn)
        return described if described["PipelineExecutionStatus"] not in ("Executing", "Stopping") else None

    def milliseconds(self):
        """Milliseconds a step, from the request to the last step's end."""
        return (max(step["EndTime"].timestamp() for step in self.steps) - self.started) * 1000 / self.count

    def stages(self):
        """The milliseconds of each of STAGES, for each step of a chain."""
        logs, rows, before = self.server.client("logs"), [], None
        for step in self.steps:
            name = step["Metadata"]["ProcessingJob"]["Arn"].rsplit("/", 1)[1]
            job = self.sagemaker.describe_processing_job(ProcessingJobName=name)
            log = logs.filter_log_events(logGroupName="/aws/sagemaker/ProcessingJobs", logStreamNamePrefix=f"{name}/")
            at = lambda moment: moment.timestamp() * 1000
            moments = [
                at(step["StartTime"]),
                at(job["CreationTime"]),
                at(job["ProcessingStartTime"]),
                int(log["events"][0]["message"]) / 1e6,
                at(job["ProcessingEndTime"]),
                at(job["LastModifiedTime"]),
                at(step["EndTime"]),
            ]
            if before is not None:
                rows.append([later - earlier for earlier, later in zip([before, *moments], moments)])
            before = moments[-1]
        return list(zip(*rows))


KFP = """
import sys, time
from kfp import dsl, local
count, chained = int(sys.argv[1]), sys.argv[2] == "chain"

@dsl.component(base_image="python", install_kfp_package=False)
def nothing():
    pass

@dsl.pipeline
def steps():
    before = None
    for _ in range(count):
        task = nothing()
        if chained and before is not None:
            task.after(before)
        before = task

local.init(runner=local.SubprocessRunner(use_venv=False), raise_on_error=True)
started = time.perf_counter()
steps()
print("ms a step", (time.perf_counter() - started) * 1000 / count)
"""


def metaflow_source(count, chained):
    """A flow of as many tasks as there are steps."""
    lines = ["from metaflow import FlowSpec, step", "", "class Steps(FlowSpec):"]

    def add(name, body, arguments="self"):
        lines.extend(["    @step", f"    def {name}({arguments}):", f"        {body}", ""])

    if chained:
        names = ["start", *[f"s{index}" for index in range(count - 2)], "end"]
        for name, follower in zip(names, names[1:]):
            add(name, f"self.next(self.{follower})")
    else:
        # Start, gather and end are tasks as well.
        add("start", f"self.items = list(range({count - 3})); self.next(self.one, foreach='items')")
        add("one", "self.next(self.gather)")
        add("gather", "self.next(self.end)", "self, inputs")
    add("end", "pass")
    return "\n".join([*lines, "if __name__ == '__main__':", "    Steps()", ""])


def kfp(python, folder, count, chained):
    """Milliseconds a step of kfp's local runner, which starts one after another, without its imports."""
    script = folder / "kfp_steps.py"
    script.write_text(KFP)
    command = [python, script, str(count), "chain" if chained else "fan-out"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"kfp failed: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return float(done.stdout.rsplit("ms a step", 1)[1])


def metaflow(python, folder, count, chained):
    """Milliseconds a step of Metaflow with as many workers as there are slots."""
    script = folder / f"metaflow_{'chain' if chained else 'fan_out'}.py"
    script.write_text(metaflow_source(count, chained))
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(folder),
        "USERNAME": "bench",
        "METAFLOW_DATASTORE_SYSROOT_LOCAL": str(folder),
    }
    command = [python, script, "--no-pylint", "run", "--max-workers", str(SLOTS), "--max-num-splits", str(count)]
    started = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"Metaflow failed: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return (time.perf_counter() - started) * 1000 / count


def main():
    run = options.parse(__doc__)
    report.heading("orchestration")
    python = environments.environment("orchestration", PEERS) / "bin/python"
    rows, overheads = [], []
    with Modelyard(run.modelyard, run.folder, "--parallel-jobs", str(SLOTS)) as server:
        Execution(server, "warm-up", 2, True)
        for name, count, chained in (("chain", CHAIN, True), ("fan-out", WIDTH, False)):
            # Before and after: what the machine does beside this changes.
            limits = [bare(count, 1 if chained else SLOTS)]
            execution = Execution(server, name, count, chained)
            limits.append(bare(count, 1 if chained else SLOTS))
            if chained:
                stages = execution.stages()
            limit, ours = statistics.mean(limits), execution.milliseconds()
            peer, other = kfp(python, run.folder, count, chained), metaflow(python, run.folder, count, chained)
            numbers = [f"{value:.0f}" for value in (ours, limit, peer, other)]
            rows.append([f"{name} of {count}", *numbers, report.ratio(peer, ours), report.ratio(other, ours)])
            overheads.append((name, ours - limit))
    heads = ["ms a step", "modelyard", "limit: bare interpreter", "kfp local", "Metaflow", "kfp / modelyard", "Metaflow / modelyard"]
    report.table(heads, rows)
    shown = [[name, f"{statistics.median(values):.1f}", f"{max(values):.1f}"] for name, values in zip(STAGES, stages)]
    report.table(["a step of the chain, ms", "median", "most"], shown)
    for name, overhead in overheads:
        report.verdict(f"{name}: over the bare interpreter", overhead, LIMIT_MS, "ms a step")


if __name__ == "__main__":
    main()
