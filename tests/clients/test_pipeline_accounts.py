"""Jobs of a pipeline cannot read or write what is another account's, whichever field names it."""

import json

from conftest import BASE_IMAGE
from test_pipelines import Pipeline

STRANGER = "210987650001"


def training(role, **more):
    return {
        "AlgorithmSpecification": {"TrainingImage": BASE_IMAGE, "TrainingInputMode": "File", "ContainerEntrypoint": ["true"]},
        "RoleArn": role,
        "OutputDataConfig": {"S3OutputPath": "s3://pipeline-stranger/out"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 10},
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
        **more,
    }


def processing(role, **more):
    return {
        "AppSpecification": {"ImageUri": BASE_IMAGE, "ContainerEntrypoint": ["touch", "/opt/ml/processing/out/x"]},
        "ProcessingResources": {"ClusterConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 10}},
        "RoleArn": role,
        **more,
    }


def test_jobs_cannot_reach_another_accounts_bucket(server, boto):
    key = json.loads(server.command("accounts", "add", STRANGER, "--name", "pipeline-stranger", "--output", "json"))
    stranger = lambda service: server.client(service, key=key["AccessKeyId"], secret=key["SecretAccessKey"])
    boto("s3").create_bucket(Bucket="pipeline-owned")
    boto("s3").put_object(Bucket="pipeline-owned", Key="data.csv", Body=b"1,2\n")
    stranger("s3").create_bucket(Bucket="pipeline-stranger")
    role = f"arn:aws:iam::{STRANGER}:role/ModelyardExecutionRole"
    data = "s3://pipeline-owned/data.csv"
    source = {"S3DataType": "S3Prefix", "S3Uri": data, "S3DataDistributionType": "FullyReplicated"}
    channel = {"ChannelName": "training", "DataSource": {"S3DataSource": source}}
    given = {"S3Uri": data, "LocalPath": "/opt/ml/processing/input", "S3DataType": "S3Prefix", "S3InputMode": "File"}
    stored = {"S3Uri": "s3://pipeline-owned/out", "LocalPath": "/opt/ml/processing/out", "S3UploadMode": "EndOfJob"}
    arguments = {
        "TrainingInput": training(role, InputDataConfig=[channel]),
        "TrainingOutput": training(role, OutputDataConfig={"S3OutputPath": "s3://pipeline-owned/out"}),
        "Checkpoints": training(role, CheckpointConfig={"S3Uri": "s3://pipeline-owned/checkpoints"}),
        "ProcessingInput": processing(role, ProcessingInputs=[{"InputName": "data", "S3Input": given}]),
        "ProcessingOutput": processing(role, ProcessingOutputConfig={"Outputs": [{"OutputName": "out", "S3Output": stored}]}),
    }
    kind = lambda name: "Training" if name in ("TrainingInput", "TrainingOutput", "Checkpoints") else "Processing"
    steps = [{"Name": name, "Type": kind(name), "Arguments": one} for name, one in arguments.items()]
    pipeline = Pipeline(stranger("sagemaker"), role, steps)
    arn = pipeline.start()
    assert pipeline.wait(arn)["PipelineExecutionStatus"] == "Failed"
    for name, step in pipeline.steps(arn).items():
        assert step["StepStatus"] == "Failed", step
        assert "bucket pipeline-owned belongs to another account" in step["FailureReason"], step
    keys = [found["Key"] for found in boto("s3").list_objects_v2(Bucket="pipeline-owned")["Contents"]]
    assert keys == ["data.csv"]
