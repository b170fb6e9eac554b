"""The headline scripts, unmodified, through the real SDKs."""

import io
import json
import os
import shutil
import tarfile
from pathlib import Path

import pytest

ACCEPTANCE = Path(__file__).parent / "acceptance"
# Version 3 of the SDK cannot live beside version 2: `cargo xtask test` makes an environment for it.
SDK3_PYTHON = os.environ["MODELYARD_SDK3_PYTHON"]


@pytest.fixture
def scripts(tmp_path):
    """A copy of the scripts, as they write beside themselves."""
    return shutil.copytree(ACCEPTANCE, tmp_path / "scripts")


def test_train(scripts, run_python, boto):
    output = run_python("run_listing1.py", directory=scripts)
    assert "channels {'training': ['a.csv'], 'validation': ['a.csv']}" in output
    assert "Train Loss: 0.1000" in output, "fit() streams the log to its last line"
    assert "Model artifacts: s3://sagemaker-us-east-1-" in output
    uri = output.split("Model artifacts: s3://")[1].split()[0]
    bucket, key = uri.split("/", 1)
    archive = boto("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        assert json.load(tar.extractfile("model.json")) == {"w": [1, 2, 3]}
    job = boto("sagemaker").describe_training_job(TrainingJobName=key.split("/")[-3])
    metrics = {metric["MetricName"]: metric["Value"] for metric in job["FinalMetricDataList"]}
    assert metrics["train:loss"] == pytest.approx(0.1)
    assert metrics["validation:accuracy"] == pytest.approx(1 - 1 / 11, abs=1e-4)


def test_deploy_and_autoscaling(scripts, run_python, boto):
    output = run_python("run_listing2.py", directory=scripts)
    assert "[1 2 3]" in output
    scaling = boto("application-autoscaling")
    [target] = scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
    assert (target["MinCapacity"], target["MaxCapacity"]) == (2, 10)
    [policy] = scaling.describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"]
    assert policy["TargetTrackingScalingPolicyConfiguration"]["TargetValue"] == 70.0
    endpoint = boto("sagemaker").describe_endpoint(EndpointName="resnet50-endpoint")
    assert endpoint["ProductionVariants"][0]["CurrentInstanceCount"] == 2


def test_unified_client(scripts, run_python, boto, role, deploy_script):
    deploy_script(
        "my-endpoint",
        """
        def model_fn(model_dir): return None
        def predict_fn(data, model): return {"sum": sum(data)}
        """,
    )
    assert "{'sum': 15}" in run_python("run_listing5.py", directory=scripts)


def test_version_3(scripts, run_python):
    environment = {"directory": scripts, "python": SDK3_PYTHON}
    output = run_python("v3_train.py", **environment)
    assert "model.tar.gz" in output
    # The script's last line sends JSON to an input_fn that unpickles its body: built and deployed, it gets its own error back.
    output = run_python("v3_modelbuilder.py", fails=True, **environment)
    assert "built mb-model" in output and "deployed" in output
    assert "ModelError" in output and "a bytes-like object is required" in output
    output = run_python("v3_serve.py", **environment)
    assert "invoked_production_variant='AllTraffic'" in output


def test_pipeline(scripts, run_python, boto):
    output = run_python("run_listing3.py", directory=scripts)
    assert "'PipelineExecutionStatus': 'Succeeded'" in output
    sagemaker = boto("sagemaker")
    [execution] = sagemaker.list_pipeline_executions(PipelineName="MLPipeline")["PipelineExecutionSummaries"]
    arn = execution["PipelineExecutionArn"]
    listed = sagemaker.list_pipeline_execution_steps(PipelineExecutionArn=arn)["PipelineExecutionSteps"]
    steps = {step["StepName"]: step for step in listed}
    assert {name: step["StepStatus"] for name, step in steps.items()} == dict.fromkeys(
        ("PreprocessData", "TrainModel", "EvaluateModel"), "Succeeded"
    )
    name = steps["EvaluateModel"]["Metadata"]["ProcessingJob"]["Arn"].split("/")[-1]
    job = sagemaker.describe_processing_job(ProcessingJobName=name)
    bucket, prefix = job["ProcessingOutputConfig"]["Outputs"][0]["S3Output"]["S3Uri"][5:].split("/", 1)
    report = boto("s3").get_object(Bucket=bucket, Key=prefix + "/evaluation.json")["Body"].read()
    assert json.loads(report) == {"accuracy": 0.9, "model": ["model.tar.gz"]}
