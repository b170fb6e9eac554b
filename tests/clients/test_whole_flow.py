"""The example from a table to an approved model that answers, run as its reader would run it."""

import json

from conftest import ROOT


def test_a_table_becomes_an_approved_model_that_answers(boto, run_python):
    printed = run_python(str(ROOT / "examples/notebook_to_model.py"), directory=ROOT)
    for name in ("Prepare", "Train", "Evaluate", "Judge", "Register-RepackModel-0", "Register-RegisterModel"):
        assert f"] {name}: Succeeded" in printed, printed
    answers = [line for line in printed.splitlines() if " is taken for " in line]
    assert len(answers) == 4
    right = [line for line in answers if line.split(" is taken for ")[0].endswith(line.split(" is taken for ")[1])]
    assert len(right) >= 3, printed

    sagemaker = boto("sagemaker")
    [package] = sagemaker.list_model_packages(ModelPackageGroupName="wine")["ModelPackageSummaryList"]
    described = sagemaker.describe_model_package(ModelPackageName=package["ModelPackageArn"])
    assert described["ModelApprovalStatus"] == "Approved"
    statistics = described["ModelMetrics"]["ModelQuality"]["Statistics"]["S3Uri"]
    bucket, key = statistics.removeprefix("s3://").split("/", 1)
    report = json.loads(boto("s3").get_object(Bucket=bucket, Key=key)["Body"].read())
    assert report["multiclass_classification_metrics"]["accuracy"]["value"] >= 0.9

    [execution] = sagemaker.list_pipeline_executions(PipelineName="wine")["PipelineExecutionSummaries"]
    trial = execution["PipelineExecutionArn"].split("/")[-1]
    components = sagemaker.list_trial_components(TrialName=trial)["TrialComponentSummaries"]
    shown = {component["DisplayName"]: component["TrialComponentSource"]["SourceType"] for component in components}
    assert shown["Train"] == "SageMakerTrainingJob"
    assert shown["Prepare"] == shown["Evaluate"] == "SageMakerProcessingJob"
