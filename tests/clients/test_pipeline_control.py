"""Pipelines under control: selected steps, caching, retry policies, stops, with the SDK's classes; and functions called once."""

import json
import os
import signal
import subprocess
import sys

import pytest

from conftest import BASE_IMAGE, poll
from test_pipelines import ENDED, Pipeline, function_archive, training

HEAD = f"""
import sys
from sagemaker.processing import ProcessingInput, ProcessingOutput, ScriptProcessor
from sagemaker.workflow.parameters import ParameterString
from sagemaker.workflow.pipeline import Pipeline
from sagemaker.workflow.pipeline_context import PipelineSession
from sagemaker.workflow.selective_execution_config import SelectiveExecutionConfig
from sagemaker.workflow.steps import CacheConfig, ProcessingStep, TrainingStep

IMAGE = {BASE_IMAGE!r}
session = PipelineSession()
"""

CHAIN = """
def processing(name, code, inputs=(), cached=False, arguments=None):
    processor = ScriptProcessor(
        role=ROLE, image_uri=IMAGE, command=["python3"], instance_type="ml.m5.large", instance_count=1,
        sagemaker_session=session,
    )
    return ProcessingStep(
        name=name,
        cache_config=CacheConfig(enable_caching=True, expire_after="PT1H") if cached else None,
        step_args=processor.run(
            code=code, arguments=arguments, inputs=list(inputs),
            outputs=[ProcessingOutput(output_name="made", source="/opt/ml/processing/made")],
        ),
    )

word = ParameterString("Word", default_value="one")
first = processing("First", "begin.py", cached=True, arguments=[word])
made = first.properties.ProcessingOutputConfig.Outputs["made"].S3Output.S3Uri
given = ProcessingInput(source=made, destination="/opt/ml/processing/given")
second = processing("Second", "pass_on.py", [given])
pipeline = Pipeline(name="control-selected", parameters=[word], steps=[first, second])
pipeline.upsert(role_arn=ROLE)

def run(**options):
    execution = pipeline.start(**options)
    execution.wait(delay=1, max_attempts=120)
    print(execution.arn)
    return execution

source = run()
named = SelectiveExecutionConfig(selected_steps=["Second"], source_pipeline_execution_arn=source.arn)
run(selective_execution_config=named)
run(selective_execution_config=SelectiveExecutionConfig(selected_steps=["Second"], reference_latest_execution=True))
run()
run(parameters={"Word": "two"})
"""


def listed(sagemaker, arn):
    steps = sagemaker.list_pipeline_execution_steps(PipelineExecutionArn=arn)["PipelineExecutionSteps"]
    return {step["StepName"]: step for step in steps}


def test_selected_steps_take_results_and_caches_hit_and_miss(server, boto, role, run_python, tmp_path):
    (tmp_path / "begin.py").write_text(
        "import sys, uuid\nopen('/opt/ml/processing/made/word', 'w').write(sys.argv[1] + uuid.uuid4().hex)\n"
    )
    (tmp_path / "pass_on.py").write_text(
        "open('/opt/ml/processing/made/word', 'w').write(open('/opt/ml/processing/given/word').read())\n"
    )
    (tmp_path / "pipeline.py").write_text(HEAD + f"ROLE = {role!r}\n" + CHAIN)
    printed = run_python("pipeline.py").splitlines()
    source, named, latest, cached, changed = [line for line in printed if line.startswith("arn:")]
    sagemaker, s3 = boto("sagemaker"), boto("s3")

    def word(step):
        job = step["Metadata"]["ProcessingJob"]["Arn"].split("/")[-1]
        outputs = sagemaker.describe_processing_job(ProcessingJobName=job)["ProcessingOutputConfig"]["Outputs"]
        bucket, _, key = outputs[0]["S3Output"]["S3Uri"].removeprefix("s3://").partition("/")
        return s3.get_object(Bucket=bucket, Key=key + "/word")["Body"].read()

    steps = {arn: listed(sagemaker, arn) for arn in (source, named, latest, cached, changed)}
    original = word(steps[source]["First"])
    for arn in (named, latest):
        taken = steps[arn]["First"]["SelectiveExecutionResult"]["SourcePipelineExecutionArn"]
        assert taken == source, "what an execution took from another one is taken from there"
        assert steps[arn]["First"]["Metadata"] == steps[source]["First"]["Metadata"]
        assert steps[arn]["Second"]["Metadata"] != steps[source]["Second"]["Metadata"]
        assert word(steps[arn]["Second"]) == original
    config = sagemaker.describe_pipeline_execution(PipelineExecutionArn=named)["SelectiveExecutionConfig"]
    assert config == {"SourcePipelineExecutionArn": source, "SelectedSteps": [{"StepName": "Second"}]}
    assert steps[cached]["First"]["CacheHitResult"]["SourcePipelineExecutionArn"] == source
    assert "CacheHitResult" not in steps[changed]["First"]
    assert word(steps[changed]["Second"]).startswith(b"two")
    shown = server.command("pipelines", "show", changed)
    assert "cache: " in shown and "ContainerArguments" in shown, shown


STOPPED = """
processor = ScriptProcessor(
    role=ROLE, image_uri=IMAGE, command=["python3"], instance_type="ml.m5.large", instance_count=1,
    sagemaker_session=session,
)
step = ProcessingStep(name="Long", step_args=processor.run(code="long.py"))
pipeline = Pipeline(name="control-stopped", steps=[step])
pipeline.upsert(role_arn=ROLE)
execution = pipeline.start()
import threading
while not [one for one in execution.list_steps() if one["StepStatus"] == "Executing"]:
    threading.Event().wait(0.1)
execution.stop()
# Its waiter does not know of stopped executions, and would ask for as long as it is told to.
while execution.describe()["PipelineExecutionStatus"] in ("Executing", "Stopping"):
    threading.Event().wait(0.1)
print(execution.describe()["PipelineExecutionStatus"])
"""


def test_the_sdk_stops_an_execution(role, run_python, tmp_path):
    (tmp_path / "long.py").write_text("import threading\nthreading.Event().wait(600)\n")
    (tmp_path / "pipeline.py").write_text(HEAD + f"ROLE = {role!r}\n" + STOPPED)
    printed = run_python("pipeline.py").splitlines()
    assert printed[-1] == "Stopped", printed


POLICIES = """
from sagemaker.estimator import Estimator
from sagemaker.workflow.retry import (
    SageMakerJobExceptionTypeEnum as Job, SageMakerJobStepRetryPolicy, StepExceptionTypeEnum, StepRetryPolicy,
)

def large(name, *policies):
    estimator = Estimator(
        image_uri=IMAGE, role=ROLE, instance_count=1, instance_type="ml.m5.24xlarge", sagemaker_session=session,
        container_entry_point=["true"],
    )
    return TrainingStep(name=name, step_args=estimator.fit(), retry_policies=list(policies))

capacity = dict(exception_types=[Job.CAPACITY_ERROR], backoff_rate=1.0)
throttling = StepRetryPolicy(exception_types=[StepExceptionTypeEnum.THROTTLING], expire_after_mins=5)
steps = [
    large("Twice", throttling, SageMakerJobStepRetryPolicy(max_attempts=2, interval_seconds=1, **capacity)),
    large("Expires", SageMakerJobStepRetryPolicy(expire_after_mins=1, interval_seconds=120, **capacity)),
    large("Other", SageMakerJobStepRetryPolicy(failure_reason_types=[Job.INTERNAL_ERROR], max_attempts=5)),
]
pipeline = Pipeline(name="control-retried", steps=steps)
pipeline.upsert(role_arn=ROLE)
print(pipeline.start().arn)
"""


def account_role(server):
    return f"arn:aws:iam::{server.connection['account']}:role/ModelyardExecutionRole"


@pytest.fixture
def tight_server(own_server):
    """A server on which no job gets more than the machine has."""
    own_server.stop()
    (own_server.data_dir / "modelyard.toml").write_text('[capacity]\nmode = "reserved"\n')
    own_server.start()
    own_server.client("s3").create_bucket(Bucket="control")
    return own_server


def test_retry_policies_of_the_sdk(tight_server, tmp_path):
    role = account_role(tight_server)
    script = tmp_path / "pipeline.py"
    script.write_text(HEAD + f"ROLE = {role!r}\n" + POLICIES)
    done = subprocess.run(
        [sys.executable, script], env=tight_server.environment(), cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    pipeline = Pipeline.__new__(Pipeline)
    pipeline.sagemaker = tight_server.client("sagemaker")
    arn = done.stdout.splitlines()[-1]
    assert pipeline.wait(arn)["PipelineExecutionStatus"] == "Failed"
    steps = pipeline.steps(arn)
    assert {name: step["AttemptCount"] for name, step in steps.items()} == {"Twice": 3, "Expires": 1, "Other": 1}
    assert all("CapacityError" in step["FailureReason"] for step in steps.values()), steps

    # A job that is lost through the server's own fault is an internal error, and is begun anew.
    s3 = tight_server.client("s3")
    s3.put_object(Bucket="control", Key="flag/hold", Body=b"")
    s3.put_object(Bucket="control", Key="flag/other", Body=b"")
    code = "import os, threading; os.path.exists('/opt/ml/input/data/training/hold') and threading.Event().wait(600)"
    policy = {"ExceptionType": ["SageMaker.JOB_INTERNAL_ERROR"], "IntervalSeconds": 1, "BackoffRate": 1.0, "MaxAttempts": 3}
    step = training("Lost", "control", role, code, "s3://control/flag/", RetryPolicies=[policy])
    pipeline = Pipeline(pipeline.sagemaker, role, [step])
    arn = pipeline.start()

    def running():
        for folder in (tight_server.data_dir / "workloads").glob("job-*"):
            if (folder / "attempt.json").exists():
                return json.loads((folder / "attempt.json").read_text()).get("supervisor_pid")
        return None

    supervisor = poll(running, "the job runs")
    s3.delete_object(Bucket="control", Key="flag/hold")
    os.kill(supervisor, signal.SIGKILL)
    assert pipeline.wait(arn)["PipelineExecutionStatus"] == "Succeeded", pipeline.steps(arn)
    assert pipeline.steps(arn)["Lost"]["AttemptCount"] == 2


# Says in its log that it was called, and returns when it is let go.
SLOW = """
import os
import threading


def handler(event, context):
    print("called")
    while not os.path.exists("/run/function/go"):
        threading.Event().wait(0.05)
    return {"answer": 42}
"""


@pytest.mark.parametrize("returns", ["after the server is back", "while the server is away"])
def test_a_function_is_called_once_though_the_server_is_killed(own_server, returns):
    server = own_server
    role = account_role(server)
    function = server.client("lambda").create_function(
        FunctionName="control-slow", Runtime="python3.11", Role=role, Handler="index.handler",
        Code={"ZipFile": function_archive(SLOW)}, Timeout=300,
    )
    outputs = [{"OutputName": "answer", "OutputType": "Integer"}]
    step = {"Name": "Slow", "Type": "Lambda", "FunctionArn": function["FunctionArn"], "OutputParameters": outputs}
    pipeline = Pipeline(server.client("sagemaker"), role, [step])
    arn = pipeline.start()

    def calls():
        logs = server.client("logs")
        try:
            streams = logs.describe_log_streams(logGroupName="/aws/lambda/control-slow")["logStreams"]
        except logs.exceptions.ResourceNotFoundException:
            return 0
        count = 0
        for stream in streams:
            lines = logs.get_log_events(
                logGroupName="/aws/lambda/control-slow", logStreamName=stream["logStreamName"], startFromHead=True
            )["events"]
            count += sum(line["message"] == "called" for line in lines)
        return count

    poll(lambda: calls() == 1, "the function is called")
    [front] = (server.data_dir / "functions").glob("fn-*/front")
    server.kill()
    if returns == "while the server is away":
        (front / "go").touch()
        poll(lambda: list(front.glob("answer-????*")), "the function answers without a server")
    server.start()
    pipeline.sagemaker = server.client("sagemaker")
    if returns == "after the server is back":
        (front / "go").touch()
    execution = pipeline.wait(arn)
    assert execution["PipelineExecutionStatus"] == "Succeeded", pipeline.steps(arn)
    shown = pipeline.steps(arn)["Slow"]["Metadata"]["Lambda"]["OutputParameters"]
    assert shown == [{"Name": "answer", "Value": "42"}]
    assert calls() == 1
    poll(lambda: not front.exists(), "nothing of the instance is left")


NOT_YET = """
from sagemaker.automl.automl import AutoML, AutoMLInput
from sagemaker.estimator import Estimator
from sagemaker.tuner import HyperparameterTuner, IntegerParameter
from sagemaker.workflow.automl_step import AutoMLStep
from sagemaker.workflow.steps import TuningStep

data = f"s3://{session.default_bucket()}/control/data.csv"
estimator = Estimator(
    image_uri=IMAGE, role=ROLE, instance_count=1, instance_type="ml.m5.large", sagemaker_session=session,
    container_entry_point=["true"],
)
tuner = HyperparameterTuner(
    estimator=estimator, objective_metric_name="loss", objective_type="Minimize",
    metric_definitions=[{"Name": "loss", "Regex": "loss=(.*)"}], hyperparameter_ranges={"depth": IntegerParameter(1, 3)},
    max_jobs=1, max_parallel_jobs=1,
)
automl = AutoML(role=ROLE, target_attribute_name="y", sagemaker_session=session, mode="ENSEMBLING", total_job_runtime_in_seconds=60)
steps = [
    TuningStep(name="Tune", step_args=tuner.fit({"train": data})),
    AutoMLStep(name="Auto", step_args=automl.fit(inputs=AutoMLInput(inputs=data, target_attribute_name="y"))),
]
pipeline = Pipeline(name="control-not-yet", steps=steps)
pipeline.upsert(role_arn=ROLE)
print(pipeline.start().arn)
"""


def test_steps_whose_operation_is_not_done_say_so(boto, role, run_python, tmp_path):
    (tmp_path / "pipeline.py").write_text(HEAD + f"ROLE = {role!r}\n" + NOT_YET)
    arn = run_python("pipeline.py").splitlines()[-1]
    pipeline = Pipeline.__new__(Pipeline)
    pipeline.sagemaker = boto("sagemaker")
    execution = pipeline.wait(arn)
    assert execution["PipelineExecutionStatus"] in ENDED
    steps = pipeline.steps(arn)
    for name, operation in {"Tune": "CreateHyperParameterTuningJob", "Auto": "CreateAutoMLJob"}.items():
        reason = steps[name]["FailureReason"]
        assert f"does not implement sagemaker {operation}" in reason, (name, reason)
