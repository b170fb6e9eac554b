"""Functions as steps of a pipeline and as jobs of their own, with the SDK's decorators."""

import os
import subprocess
import textwrap

import pytest

from conftest import BASE_IMAGE, Server, poll, stop_all

ENDED = ("Succeeded", "Failed", "Stopped")

HEAD = f"""
import sys
IMAGE = {BASE_IMAGE!r}
# One file for all, so that one environment serves all.
JOB = dict(image_uri=IMAGE, instance_type="ml.m5.large", dependencies="needs.txt")
"""

STEPS = """
from sagemaker.workflow.condition_step import ConditionStep
from sagemaker.workflow.conditions import ConditionGreaterThanOrEqualTo
from sagemaker.workflow.fail_step import FailStep
from sagemaker.workflow.function_step import step
from sagemaker.workflow.parameters import ParameterInteger
from sagemaker.workflow.pipeline import Pipeline
"""


def ended(sagemaker, arn):
    """Status and steps of an execution when it has ended."""

    def settled():
        execution = sagemaker.describe_pipeline_execution(PipelineExecutionArn=arn)
        return execution if execution["PipelineExecutionStatus"] in ENDED else None

    execution = poll(settled, f"{arn} ends", 400)
    listed = sagemaker.list_pipeline_execution_steps(PipelineExecutionArn=arn)["PipelineExecutionSteps"]
    return execution["PipelineExecutionStatus"], {step["StepName"]: step for step in listed}


@pytest.fixture
def execute(boto, run_python, tmp_path):
    """Runs a script that prints the ARN of an execution; answers its status and its steps when it has ended."""

    def run(source):
        (tmp_path / "functions.py").write_text(HEAD + STEPS + textwrap.dedent(source))
        (tmp_path / "needs.txt").write_text("colorama\n")
        return ended(boto("sagemaker"), run_python("functions.py").splitlines()[-1])

    return run


def job_of(step):
    return step["Metadata"]["TrainingJob"]["Arn"].split("/")[-1]


def test_functions_pass_their_results_on(execute, role, jobs):
    source = f"""
        @step(name="Split", **JOB)
        def split(count: int) -> tuple:
            return list(range(count)), {{"count": count}}

        @step(name="Total", **JOB)
        def total(numbers, facts) -> dict:
            assert len(numbers) == facts["count"]
            return {{"sum": sum(numbers)}}

        @step(name="Good", **JOB)
        def good(value, count):
            import colorama
            assert (value, count) == (10, 5)

        count = ParameterInteger("Count", default_value=5)
        parts = split(count)
        totals = total(parts[0], parts[1])
        judged = ConditionStep(
            name="Judge",
            conditions=[ConditionGreaterThanOrEqualTo(left=totals["sum"], right=10)],
            if_steps=[good(totals["sum"], count)],
            else_steps=[FailStep(name="TooSmall", error_message="the sum is too small")],
        )
        pipeline = Pipeline(name="functions-pass-results", parameters=[count], steps=[judged])
        pipeline.upsert(role_arn={role!r})
        print(pipeline.start().arn)
    """
    status, steps = execute(source)
    assert status == "Succeeded", steps
    assert set(steps) == {"Split", "Total", "Judge", "Good"}
    assert steps["Judge"]["Metadata"]["Condition"]["Outcome"] == "True"
    # What the function needs was in its environment: nothing was installed by the job.
    lines = "\n".join(jobs.lines(job_of(steps["Total"])))
    assert "No dependencies to install." in lines, lines


def test_the_exception_of_a_function_is_the_reason_of_its_step(server, execute, role):
    source = f"""
        @step(name="Breaks", **JOB)
        def breaks():
            raise ValueError("no such luck")

        pipeline = Pipeline(name="functions-that-break", steps=[breaks()])
        pipeline.upsert(role_arn={role!r})
        print(pipeline.start().arn)
    """
    status, steps = execute(source)
    assert status == "Failed"
    assert "no such luck" in steps["Breaks"]["FailureReason"], steps
    why = server.command("jobs", "why", job_of(steps["Breaks"]))
    assert "ValueError" in why and "no such luck" in why, why


REMOTE = """
import pathlib
import beside
from sagemaker.remote_function import remote
from sagemaker.remote_function.errors import RemoteFunctionError

@remote(include_local_workdir=True, **JOB)
def count(numbers, factor=1):
    import colorama, beside
    return {"sum": beside.added(numbers) * factor, "colour": colorama.__name__}

@remote(**JOB)
def breaks(value):
    raise KeyError(value)

print(count([1, 2, 3], factor=2))
try:
    breaks("gone")
except KeyError as error:
    print("raised", error)
"""


def test_a_remote_function_answers_and_raises_here(run_python, tmp_path, bucket):
    (tmp_path / "remote.py").write_text(HEAD + REMOTE)
    (tmp_path / "beside.py").write_text("def added(numbers):\n    return sum(numbers)\n")
    (tmp_path / "needs.txt").write_text("colorama\n")
    printed = run_python("remote.py")
    assert "{'sum': 12, 'colour': 'colorama'}" in printed, printed
    assert "raised 'gone'" in printed, printed


VERSION_3 = """
from sagemaker.mlops.workflow.function_step import step
from sagemaker.mlops.workflow.pipeline import Pipeline

JOB = dict(image_uri="123456789012.dkr.ecr.us-east-1.amazonaws.com/version-3:1", instance_type="ml.m5.large", role=ROLE)

@step(name="One", **JOB)
def one(n) -> dict:
    return {"n": n + 1}

@step(name="Two", **JOB)
def two(n):
    assert n == 42

pipeline = Pipeline(name="functions-of-version-3", steps=[two(one(41)["n"])])
pipeline.upsert(role_arn=ROLE)
print(pipeline.start().arn)
"""


def test_functions_of_version_3_run_in_an_image_that_has_it(tmp_path):
    python = os.environ["MODELYARD_SDK3_PYTHON"]
    images = tmp_path / "images.toml"
    images.write_text(
        f"[[image]]\nname = 'version-3'\npattern = '.*/version-3:.*'\nframework = 'python'\ninterpreter = '{python}'\n"
    )
    server = Server(tmp_path / "data", "--images", images).start()
    try:
        role = f"arn:aws:iam::{server.connection['account']}:role/ModelyardExecutionRole"
        (tmp_path / "functions.py").write_text(f"ROLE = {role!r}\n" + VERSION_3)
        done = subprocess.run(
            [python, "functions.py"], cwd=tmp_path, env=server.environment(), capture_output=True, text=True, timeout=500
        )
        assert done.returncode == 0, done.stdout + done.stderr
        status, steps = ended(server.client("sagemaker"), done.stdout.splitlines()[-1])
        assert status == "Succeeded", steps
        assert set(steps) == {"One", "Two"}
    finally:
        stop_all(server)
