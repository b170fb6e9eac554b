"""Pipelines with the SDK's own classes and with boto3: branches, caching, retries, callbacks, functions, killed servers."""

import io
import json
import textwrap
import uuid
import zipfile

import pytest

from conftest import poll
from test_neighbours import soon

IMAGE = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-base-python:3.11"
ENDED = ("Succeeded", "Failed", "Stopped")


def training(name, bucket, role, code="pass", channel=None, **more):
    """A step whose job runs one line of Python."""
    arguments = {
        "AlgorithmSpecification": {
            "TrainingImage": IMAGE,
            "TrainingInputMode": "File",
            "ContainerEntrypoint": ["python3", "-c", code],
        },
        "OutputDataConfig": {"S3OutputPath": f"s3://{bucket}/pipelines"},
        "StoppingCondition": {"MaxRuntimeInSeconds": 300},
        "ResourceConfig": {"VolumeSizeInGB": 10, "InstanceCount": 1, "InstanceType": "ml.m5.large"},
        "RoleArn": role,
    }
    if channel:
        source = {"S3DataType": "S3Prefix", "S3Uri": channel, "S3DataDistributionType": "FullyReplicated"}
        arguments["InputDataConfig"] = [{"ChannelName": "training", "DataSource": {"S3DataSource": source}}]
    return {"Name": name, "Type": "Training", "Arguments": arguments, **more}


class Pipeline:
    """A pipeline made of step dictionaries."""

    def __init__(self, sagemaker, role, steps, parameters=()):
        self.sagemaker = sagemaker
        self.name = "p-" + uuid.uuid4().hex[:10]
        definition = {"Version": "2020-12-01", "Parameters": list(parameters), "Steps": steps}
        sagemaker.create_pipeline(PipelineName=self.name, RoleArn=role, PipelineDefinition=json.dumps(definition))

    def start(self, **more):
        return self.sagemaker.start_pipeline_execution(PipelineName=self.name, **more)["PipelineExecutionArn"]

    def describe(self, arn):
        return self.sagemaker.describe_pipeline_execution(PipelineExecutionArn=arn)

    def wait(self, arn):
        def ended():
            execution = self.describe(arn)
            return execution if execution["PipelineExecutionStatus"] in ENDED else None

        return poll(ended, f"{arn} ends")

    def steps(self, arn):
        listed = self.sagemaker.list_pipeline_execution_steps(PipelineExecutionArn=arn, MaxResults=100)
        return {step["StepName"]: step for step in listed["PipelineExecutionSteps"]}

    def run(self, **more):
        arn = self.start(**more)
        execution = self.wait(arn)
        steps = self.steps(arn)
        assert execution["PipelineExecutionStatus"] == "Succeeded", (execution, steps)
        return arn, steps


def test_a_model_goes_from_step_to_step(boto, role, bucket):
    first = training("First", bucket, role, "open('/opt/ml/model/weights', 'w').write('42')")
    check = (
        "import tarfile; t = tarfile.open('/opt/ml/input/data/training/model.tar.gz');"
        "assert t.extractfile('weights').read() == b'42'"
    )
    second = training("Second", bucket, role, check, {"Get": "Steps.First.ModelArtifacts.S3ModelArtifacts"})
    pipeline = Pipeline(boto("sagemaker"), role, [second, first])
    arn, steps = pipeline.run()
    job = steps["First"]["Metadata"]["TrainingJob"]["Arn"].split("/")[-1]
    execution = arn.split("/")[-1]
    assert job.startswith(f"pipelines-{execution}-first-")
    assert pipeline.sagemaker.describe_training_job(TrainingJobName=job)["TrainingJobStatus"] == "Completed"
    assert steps["First"]["EndTime"] <= steps["Second"]["StartTime"]


def test_results_are_reused_until_an_input_changes(server, boto, role, bucket):
    key = f"cache/{uuid.uuid4().hex}/data.csv"
    boto("s3").put_object(Bucket=bucket, Key=key, Body=b"1")
    cached = {"CacheConfig": {"Enabled": True, "ExpireAfter": "P30d"}}
    step = training("Train", bucket, role, "open('/opt/ml/model/m', 'w')", f"s3://{bucket}/{key}", **cached)
    pipeline = Pipeline(boto("sagemaker"), role, [step])
    first, steps = pipeline.run()
    assert "CacheHitResult" not in steps["Train"]
    second, again = pipeline.run()
    assert again["Train"]["CacheHitResult"]["SourcePipelineExecutionArn"] == first
    assert again["Train"]["Metadata"] == steps["Train"]["Metadata"]
    assert "cache: All " in server.command("pipelines", "show", second)
    assert "Train.CachedFrom: null -> " in server.command("pipelines", "diff", first, second)
    boto("s3").put_object(Bucket=bucket, Key=key, Body=b"2")
    third, changed = pipeline.run()
    assert "CacheHitResult" not in changed["Train"]
    shown = server.command("pipelines", "show", third)
    assert f"object s3://{bucket}/{key} changed from" in shown


def test_a_failed_job_is_retried_by_hand_where_it_failed(boto, role, bucket):
    flag = f"flags/{uuid.uuid4().hex}"
    s3 = boto("s3")
    s3.put_object(Bucket=bucket, Key=flag + "/state", Body=b"bad")
    code = "import sys; sys.exit(open('/opt/ml/input/data/training/state').read() == 'bad')"
    good = training("Good", bucket, role)
    flaky = training("Flaky", bucket, role, code, f"s3://{bucket}/{flag}", DependsOn=["Good"])
    pipeline = Pipeline(boto("sagemaker"), role, [good, flaky, training("After", bucket, role, DependsOn=["Flaky"])])
    arn = pipeline.start()
    execution = pipeline.wait(arn)
    assert execution["PipelineExecutionStatus"] == "Failed"
    assert "Flaky" in execution["FailureReason"]
    steps = pipeline.steps(arn)
    assert set(steps) == {"Good", "Flaky"}
    assert "exit" in steps["Flaky"]["FailureReason"].lower()
    s3.put_object(Bucket=bucket, Key=flag + "/state", Body=b"good")
    pipeline.sagemaker.retry_pipeline_execution(PipelineExecutionArn=arn)
    assert pipeline.wait(arn)["PipelineExecutionStatus"] == "Succeeded"
    after = pipeline.steps(arn)
    assert {name: step["AttemptCount"] for name, step in after.items()} == {"Good": 1, "Flaky": 2, "After": 1}
    assert after["Good"]["Metadata"] == steps["Good"]["Metadata"]


def test_a_stop_ends_the_job_and_the_execution(boto, role, bucket):
    long = training("Long", bucket, role, "import time; time.sleep(600)")
    pipeline = Pipeline(boto("sagemaker"), role, [long, training("After", bucket, role, DependsOn=["Long"])])
    arn = pipeline.start()
    poll(lambda: pipeline.steps(arn).get("Long", {}).get("StepStatus") == "Executing", "the step executes")
    pipeline.sagemaker.stop_pipeline_execution(PipelineExecutionArn=arn)
    assert pipeline.wait(arn)["PipelineExecutionStatus"] == "Stopped"
    steps = pipeline.steps(arn)
    assert {name: step["StepStatus"] for name, step in steps.items()} == {"Long": "Stopped"}


def test_a_killed_server_takes_every_step_up_once(own_server):
    server = own_server
    account = server.connection["account"]
    role = f"arn:aws:iam::{account}:role/ModelyardExecutionRole"
    server.client("s3").create_bucket(Bucket="kills")
    chain = [training("S0", "kills", role, "open('/opt/ml/model/m', 'w')")]
    for at in range(1, 4):
        before = {"Get": f"Steps.S{at - 1}.ModelArtifacts.S3ModelArtifacts"}
        chain.append(training(f"S{at}", "kills", role, "open('/opt/ml/model/m', 'w')", before))
    wide = [training(f"W{at}", "kills", role, DependsOn=["S0"]) for at in range(3)]
    pipeline = Pipeline(server.client("sagemaker"), role, chain + wide)
    arn = pipeline.start()
    for at in range(4):
        poll(lambda: f"S{at}" in pipeline.steps(arn), f"S{at} begins")
        server.kill()
        server.start()
        pipeline.sagemaker = server.client("sagemaker")
    assert pipeline.wait(arn)["PipelineExecutionStatus"] == "Succeeded"
    steps = pipeline.steps(arn)
    assert {step["AttemptCount"] for step in steps.values()} == {1}
    jobs = pipeline.sagemaker.list_training_jobs(MaxResults=100)["TrainingJobSummaries"]
    assert len(jobs) == len(steps) == 7, "every step has made one job"


def test_conditions_property_files_and_join_of_the_sdk(boto, role, bucket, run_python, tmp_path):
    (tmp_path / "evaluate.py").write_text(
        "import json, sys\njson.dump({'metrics': {'accuracy': float(sys.argv[1])}}, "
        "open('/opt/ml/processing/evaluation/evaluation.json', 'w'))\n"
    )
    (tmp_path / "pipeline.py").write_text(
        textwrap.dedent(f"""
        import json
        from sagemaker.processing import ProcessingOutput, ScriptProcessor
        from sagemaker.workflow.condition_step import ConditionStep
        from sagemaker.workflow.conditions import ConditionGreaterThanOrEqualTo
        from sagemaker.workflow.fail_step import FailStep
        from sagemaker.workflow.functions import Join, JsonGet
        from sagemaker.workflow.parameters import ParameterFloat, ParameterString
        from sagemaker.workflow.pipeline import Pipeline
        from sagemaker.workflow.pipeline_context import PipelineSession
        from sagemaker.workflow.properties import PropertyFile
        from sagemaker.workflow.steps import ProcessingStep

        accuracy = ParameterString("Accuracy", default_value="0.9")
        threshold = ParameterFloat("Threshold", default_value=0.8)
        processor = ScriptProcessor(
            role={role!r}, image_uri={IMAGE!r}, command=["python3"], instance_type="ml.m5.large",
            instance_count=1, sagemaker_session=PipelineSession(),
        )
        report = PropertyFile(name="Report", output_name="evaluation", path="evaluation.json")
        evaluate = ProcessingStep(
            name="Evaluate", property_files=[report],
            step_args=processor.run(
                code="evaluate.py", arguments=[accuracy],
                outputs=[ProcessingOutput(output_name="evaluation", source="/opt/ml/processing/evaluation")],
            ),
        )
        met = ConditionGreaterThanOrEqualTo(
            left=JsonGet(step_name="Evaluate", property_file=report, json_path="metrics.accuracy"), right=threshold,
        )
        low = FailStep(name="TooLow", error_message=Join(on=" ", values=["accuracy below", threshold]))
        good = ProcessingStep(
            name="Good", step_args=processor.run(code="evaluate.py", arguments=["1"],
            outputs=[ProcessingOutput(output_name="evaluation", source="/opt/ml/processing/evaluation")]),
        )
        pipeline = Pipeline(
            name="evaluated", parameters=[accuracy, threshold],
            steps=[evaluate, ConditionStep(name="Met", conditions=[met], if_steps=[good], else_steps=[low])],
        )
        pipeline.upsert(role_arn={role!r})
        pipeline.upsert(role_arn={role!r})
        print(json.dumps([pipeline.start().arn, pipeline.start(parameters=dict(Accuracy="0.5")).arn]))
        """)
    )
    arns = json.loads(run_python("pipeline.py").splitlines()[-1])
    pipeline = Pipeline.__new__(Pipeline)
    pipeline.sagemaker = boto("sagemaker")
    good, low = [pipeline.wait(arn) for arn in arns]
    assert good["PipelineExecutionStatus"] == "Succeeded", pipeline.steps(arns[0])
    assert pipeline.steps(arns[0])["Met"]["Metadata"]["Condition"]["Outcome"] == "True"
    assert low["PipelineExecutionStatus"] == "Failed"
    assert pipeline.steps(arns[1])["TooLow"]["FailureReason"] == "accuracy below 0.8"
    assert set(pipeline.steps(arns[1])) == {"Evaluate", "Met", "TooLow"}


def function_archive(source):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("index.py", source)
    return archive.getvalue()


def test_functions_and_callbacks_pass_their_outputs_on(boto, role):
    functions, queues = boto("lambda"), boto("sqs")
    name = "f-" + uuid.uuid4().hex[:8]
    source = "def handler(event, context):\n    return {'sum': event['a'] + event['b'], 'text': 'made'}\n"
    function = functions.create_function(
        FunctionName=name, Runtime="python3.11", Role=role, Handler="index.handler", Code={"ZipFile": function_archive(source)}
    )
    queue = queues.create_queue(QueueName="q-" + uuid.uuid4().hex[:8])["QueueUrl"]
    outputs = [{"OutputName": "sum", "OutputType": "Integer"}, {"OutputName": "text", "OutputType": "String"}]
    steps = [
        {
            "Name": "Add",
            "Type": "Lambda",
            "FunctionArn": function["FunctionArn"],
            "Arguments": {"a": {"Get": "Parameters.A"}, "b": 2},
            "OutputParameters": outputs,
        },
        {
            "Name": "Ask",
            "Type": "Callback",
            "SqsQueueUrl": queue,
            "Arguments": {"sum": {"Get": "Steps.Add.OutputParameters['sum']"}},
            "OutputParameters": [{"OutputName": "verdict", "OutputType": "String"}],
        },
        {
            "Name": "Judge",
            "Type": "Condition",
            "Arguments": {
                "Conditions": [
                    {
                        "Type": "Equals",
                        "LeftValue": {"Get": "Steps.Ask.OutputParameters['verdict']"},
                        "RightValue": "fine",
                    }
                ],
                "ElseSteps": [{"Name": "No", "Type": "Fail", "Arguments": {"ErrorMessage": "refused"}}],
            },
        },
    ]
    parameters = [{"Name": "A", "Type": "Integer", "DefaultValue": 1}]
    pipeline = Pipeline(boto("sagemaker"), role, steps, parameters)

    def asked():
        messages = queues.receive_message(QueueUrl=queue, WaitTimeSeconds=1).get("Messages")
        if not messages:
            return None
        queues.delete_message(QueueUrl=queue, ReceiptHandle=messages[0]["ReceiptHandle"])
        return json.loads(messages[0]["Body"])

    arn = pipeline.start(PipelineParameters=[{"Name": "A", "Value": "40"}])
    message = poll(asked, "the callback's message comes")
    assert message["arguments"] == {"sum": 42}
    assert (message["pipelineExecutionArn"], message["status"]) == (arn, "Executing")
    sagemaker = pipeline.sagemaker
    with pytest.raises(sagemaker.exceptions.ClientError, match="verdict"):
        sagemaker.send_pipeline_execution_step_success(CallbackToken=message["token"])
    told = [{"Name": "verdict", "Value": "fine"}]
    sagemaker.send_pipeline_execution_step_success(CallbackToken=message["token"], OutputParameters=told)
    assert pipeline.wait(arn)["PipelineExecutionStatus"] == "Succeeded", pipeline.steps(arn)
    steps = pipeline.steps(arn)
    assert {"Name": "sum", "Value": "42"} in steps["Add"]["Metadata"]["Lambda"]["OutputParameters"]
    assert steps["Ask"]["Metadata"]["Callback"]["OutputParameters"] == told

    arn = pipeline.start()
    message = poll(asked, "the second message comes")
    sagemaker.send_pipeline_execution_step_failure(CallbackToken=message["token"], FailureReason="nobody is there")
    assert pipeline.wait(arn)["PipelineExecutionStatus"] == "Failed"
    assert pipeline.steps(arn)["Ask"]["FailureReason"] == "nobody is there"


def test_a_model_is_registered_once(boto, role, bucket):
    train = training("Train", bucket, role, "open('/opt/ml/model/m', 'w')")
    group = "g-" + uuid.uuid4().hex[:8]
    container = {"Image": IMAGE, "ModelDataUrl": {"Get": "Steps.Train.ModelArtifacts.S3ModelArtifacts"}}
    register = {
        "Name": "Register",
        "Type": "RegisterModel",
        "Arguments": {
            "ModelPackageGroupName": group,
            "InferenceSpecification": {
                "Containers": [container],
                "SupportedContentTypes": ["text/csv"],
                "SupportedResponseMIMETypes": ["text/csv"],
            },
            "ModelApprovalStatus": {"Get": "Parameters.Approval"},
        },
    }
    parameters = [{"Name": "Approval", "Type": "String", "DefaultValue": "PendingManualApproval"}]
    pipeline = Pipeline(boto("sagemaker"), role, [train, register], parameters)
    _, steps = pipeline.run()
    sagemaker = pipeline.sagemaker
    [package] = sagemaker.list_model_packages(ModelPackageGroupName=group)["ModelPackageSummaryList"]
    assert steps["Register"]["Metadata"]["RegisterModel"]["Arn"] == package["ModelPackageArn"]
    assert package["ModelApprovalStatus"] == "PendingManualApproval"


def test_an_approval_starts_a_pipeline_and_so_does_a_schedule(boto, role, bucket):
    sagemaker, events, scheduler = boto("sagemaker"), boto("events"), boto("scheduler")
    unique = uuid.uuid4().hex[:8]
    key = f"approved/{unique}/model.tar.gz"
    boto("s3").put_object(Bucket=bucket, Key=key, Body=b"weights")
    group = "approved-" + unique
    sagemaker.create_model_package_group(ModelPackageGroupName=group)
    package = sagemaker.create_model_package(
        ModelPackageGroupName=group,
        InferenceSpecification={
            "Containers": [{"Image": IMAGE, "ModelDataUrl": f"s3://{bucket}/{key}"}],
            "SupportedContentTypes": ["text/csv"],
            "SupportedResponseMIMETypes": ["text/csv"],
        },
    )["ModelPackageArn"]
    containers = [{"ModelPackageName": {"Get": "Parameters.Package"}}]
    create = {"Name": "Create", "Type": "Model", "Arguments": {"ExecutionRoleArn": role, "Containers": containers}}
    pipeline = Pipeline(sagemaker, role, [create], [{"Name": "Package", "Type": "String", "DefaultValue": package}])
    arn = sagemaker.describe_pipeline(PipelineName=pipeline.name)["PipelineArn"]

    pattern = {
        "source": ["aws.sagemaker"],
        "detail-type": ["SageMaker Model Package State Change"],
        "detail": {"ModelPackageGroupName": [group], "ModelApprovalStatus": ["Approved"]},
    }
    events.put_rule(Name=group, EventPattern=json.dumps(pattern))
    parameters = [{"Name": "Package", "Value": "$.detail.ModelPackageArn"}]
    target = {"Id": "p", "Arn": arn, "RoleArn": role, "SageMakerPipelineParameters": {"PipelineParameterList": parameters}}
    assert events.put_targets(Rule=group, Targets=[target])["FailedEntryCount"] == 0
    sagemaker.update_model_package(ModelPackageArn=package, ModelApprovalStatus="Approved")

    def executions(count):
        listed = sagemaker.list_pipeline_executions(PipelineName=pipeline.name)["PipelineExecutionSummaries"]
        return listed if len(listed) == count else None

    [started] = poll(lambda: executions(1), "the approval starts an execution")
    execution = pipeline.wait(started["PipelineExecutionArn"])
    assert execution["PipelineExecutionStatus"] == "Succeeded", pipeline.steps(started["PipelineExecutionArn"])
    model = pipeline.steps(started["PipelineExecutionArn"])["Create"]["Metadata"]["Model"]["Arn"].split("/")[-1]
    described = sagemaker.describe_model(ModelName=model)["Containers"][0]
    assert described["ModelPackageName"] == package
    found = sagemaker.search(
        Resource="PipelineExecution",
        SearchExpression={"Filters": [{"Name": "PipelineParameters.Value", "Operator": "Equals", "Value": package}]},
    )["Results"]
    assert [one["PipelineExecution"]["PipelineExecutionArn"] for one in found] == [started["PipelineExecutionArn"]]

    scheduler.create_schedule(
        Name=group,
        ScheduleExpression=soon(1),
        FlexibleTimeWindow={"Mode": "OFF"},
        Target={"Arn": arn, "RoleArn": role, "SageMakerPipelineParameters": {"PipelineParameterList": []}},
    )
    both = poll(lambda: executions(2), "the schedule starts an execution")
    for one in both:
        assert pipeline.wait(one["PipelineExecutionArn"])["PipelineExecutionStatus"] == "Succeeded"


def test_steps_whose_jobs_are_not_built_yet_say_so(boto, role, bucket):
    """Definitions with them are taken, and the step itself fails, with the name of what is missing."""

    def check(image, **more):
        cluster = {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 10}
        arguments = {
            "ProcessingResources": {"ClusterConfig": cluster},
            "AppSpecification": {"ImageUri": f"123456789012.dkr.ecr.us-east-1.amazonaws.com/{image}"},
            "RoleArn": role,
        }
        return {"Arguments": arguments, "SkipCheck": False, "RegisterNewBaseline": True, "FailOnViolation": True, **more}

    tuning = {"HyperParameterTuningJobConfig": {"Strategy": "Random", "ResourceLimits": {"MaxParallelTrainingJobs": 1}}}
    steps = [
        {"Name": "Tune", "Type": "Tuning", "Arguments": tuning},
        {"Name": "Auto", "Type": "AutoML", "Arguments": {"RoleArn": role}},
        {"Name": "Bias", "Type": "ClarifyCheck", "CheckType": "DATA_BIAS", **check("sagemaker-clarify-processing:1.0")},
        {"Name": "Quality", "Type": "QualityCheck", "CheckType": "DATA_QUALITY", **check("sagemaker-model-monitor-analyzer")},
    ]
    pipeline = Pipeline(boto("sagemaker"), role, steps)
    arn = pipeline.start()
    assert pipeline.wait(arn)["PipelineExecutionStatus"] == "Failed"
    # A failed step ends the others, unless they have ended as well.
    said = {name: step.get("FailureReason", "") for name, step in pipeline.steps(arn).items()}
    missing = {
        "Tune": "CreateHyperParameterTuningJob",
        "Auto": "CreateAutoMLJob",
        "Bias": "sagemaker-clarify-processing",
        "Quality": "sagemaker-model-monitor-analyzer",
    }
    for name, what in missing.items():
        assert what in said[name] and " yet" in said[name], said
