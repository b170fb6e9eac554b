"""The model registry and model cards, by boto3 and by the classes of the SDK."""

import json
import re
import uuid

import pytest
from conftest import PYTORCH_INFERENCE, archive

DOUBLE = """
def model_fn(model_dir): return None
def predict_fn(data, model): return {"doubled": data * 2}
"""


@pytest.fixture
def registry(server, bucket, endpoints):
    return Registry(server, bucket, endpoints)


class Registry:
    """Model packages from a few lines of Python."""

    def __init__(self, server, bucket, endpoints):
        self.server, self.bucket, self.endpoints = server, bucket, endpoints
        self.sagemaker, self.s3 = endpoints.sagemaker, endpoints.s3
        self.group = "group-" + uuid.uuid4().hex[:8]
        self.key = f"registry/{self.group}/model.tar.gz"

    @property
    def uri(self):
        return f"s3://{self.bucket}/{self.key}"

    def upload(self, script=DOUBLE):
        self.s3.put_object(Bucket=self.bucket, Key=self.key, Body=archive({"code/inference.py": script}))

    def register(self, **request):
        self.upload()
        self.sagemaker.create_model_package_group(ModelPackageGroupName=self.group)
        created = self.sagemaker.create_model_package(
            ModelPackageGroupName=self.group,
            InferenceSpecification={
                "Containers": [{"Image": PYTORCH_INFERENCE, "ModelDataUrl": self.uri}],
                "SupportedContentTypes": ["application/json"],
                "SupportedResponseMIMETypes": ["application/json"],
            },
            **request,
        )
        return created["ModelPackageArn"]

    def model(self, package):
        self.sagemaker.create_model(
            ModelName=self.group, ExecutionRoleArn=self.endpoints.role, Containers=[{"ModelPackageName": package}]
        )


def test_a_changed_artifact_is_neither_a_model_nor_an_endpoint(registry):
    sagemaker = registry.sagemaker
    package = registry.register(ModelApprovalStatus="PendingManualApproval", Domain="OTHER")
    with pytest.raises(sagemaker.exceptions.ClientError, match="PendingManualApproval"):
        registry.model(package)
    sagemaker.update_model_package(
        ModelPackageArn=package, ModelApprovalStatus="Approved", ApprovalDescription="reviewed"
    )
    registry.model(package)
    described = sagemaker.describe_model(ModelName=registry.group)["Containers"][0]
    assert (described["ModelPackageName"], described["ModelDataUrl"]) == (package, registry.uri)

    registry.upload(DOUBLE + "# changed\n")
    with pytest.raises(sagemaker.exceptions.ClientError, match="SHA-256"):
        sagemaker.create_model(
            ModelName="other", ExecutionRoleArn=registry.endpoints.role, PrimaryContainer={"ModelPackageName": package}
        )
    registry.endpoints.config(registry.group, **{registry.group: 1.0})
    sagemaker.create_endpoint(EndpointName=registry.group, EndpointConfigName=registry.group)
    endpoint = registry.endpoints.wait(registry.group)
    assert endpoint["EndpointStatus"] == "Failed"
    assert registry.uri in endpoint["FailureReason"] and re.search("[0-9a-f]{64}", endpoint["FailureReason"])
    registry.endpoints.delete(registry.group)

    shown = registry.server.command("registry", "show", registry.group)
    assert "Version 1: Approved" in shown and "by modelyard: reviewed" in shown and registry.uri in shown
    assert registry.group in registry.server.command("registry")
    with pytest.raises(sagemaker.exceptions.ConflictException, match="still has Model Packages"):
        sagemaker.delete_model_package_group(ModelPackageGroupName=registry.group)
    with pytest.raises(sagemaker.exceptions.ConflictException, match="was created from it"):
        sagemaker.delete_model_package(ModelPackageName=package)
    sagemaker.delete_model(ModelName=registry.group)
    sagemaker.delete_model_package(ModelPackageName=package)
    sagemaker.delete_model_package_group(ModelPackageGroupName=registry.group)


def test_another_account_deploys_what_a_policy_shares(registry, server):
    package = registry.register(ModelApprovalStatus="Approved")
    added = server.command("accounts", "add", "310987654321", "--name", "research", "--output", "json")
    keys = json.loads(added)
    other = server.client("sagemaker", keys["AccessKeyId"], keys["SecretAccessKey"])
    with pytest.raises(other.exceptions.ClientError) as caught:
        other.describe_model_package(ModelPackageName=package)
    assert caught.value.response["Error"]["Code"] == "AccessDeniedException"
    statement = {
        "Effect": "Allow",
        "Principal": {"AWS": "arn:aws:iam::310987654321:root"},
        "Action": ["sagemaker:DescribeModelPackage", "sagemaker:CreateModel"],
        "Resource": package.rsplit("/", 1)[0] + "/*",
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    registry.sagemaker.put_model_package_group_policy(ModelPackageGroupName=registry.group, ResourcePolicy=policy)
    assert other.describe_model_package(ModelPackageName=package)["ModelApprovalStatus"] == "Approved"
    role = "arn:aws:iam::310987654321:role/ModelyardExecutionRole"
    other.create_model(ModelName="shared", ExecutionRoleArn=role, PrimaryContainer={"ModelPackageName": package})
    variant = {"VariantName": "a", "ModelName": "shared", "InitialInstanceCount": 1, "InstanceType": "ml.m5.large"}
    other.create_endpoint_config(EndpointConfigName="shared", ProductionVariants=[variant])
    other.create_endpoint(EndpointName="shared", EndpointConfigName="shared")
    theirs = type(registry.endpoints).__new__(type(registry.endpoints))
    theirs.sagemaker = other
    endpoint = theirs.wait("shared")
    assert endpoint["EndpointStatus"] == "InService", endpoint.get("FailureReason")
    runtime = server.client("sagemaker-runtime", keys["AccessKeyId"], keys["SecretAccessKey"])
    answer = runtime.invoke_endpoint(EndpointName="shared", Body=b"21", ContentType="application/json")
    assert json.load(answer["Body"]) == {"doubled": 42}
    other.delete_endpoint(EndpointName="shared")
    waiter = other.get_waiter("endpoint_deleted")
    waiter.wait(EndpointName="shared", WaiterConfig={"Delay": 1, "MaxAttempts": 60})


SDK_REGISTER = """
import json, sys
import sagemaker
from sagemaker.model import Model, ModelPackage
from sagemaker.model_life_cycle import ModelLifeCycle

image, data, group, role = sys.argv[1:]
model = Model(image_uri=image, model_data=data, role=role, sagemaker_session=sagemaker.Session())
package = model.register(
    content_types=["application/json"], response_types=["application/json"],
    inference_instances=["ml.m5.large"], transform_instances=["ml.m5.large"],
    model_package_group_name=group, approval_status="PendingManualApproval",
    customer_metadata_properties={"team": "growth", "old": "1"},
    model_life_cycle=ModelLifeCycle(stage="Development", stage_status="Ready"),
)
package.update_approval_status("Rejected", "too slow")
package.update_approval_status("Approved", "fast enough")
package.remove_customer_metadata_properties(["old"])
package.update_customer_metadata({"region": "eu"})
package.add_inference_specification(name="small", image_uris=[image])
again = ModelPackage(role=role, model_package_arn=package.model_package_arn, sagemaker_session=sagemaker.Session())
again.deploy(initial_instance_count=1, instance_type="ml.m5.large", endpoint_name=group, wait=False)
print(json.dumps(package.model_package_arn))
"""


def test_the_sdk_registers_approves_and_deploys(registry, run_python, tmp_path):
    registry.upload()
    script = tmp_path / "register.py"
    script.write_text(SDK_REGISTER)
    printed = run_python(script, PYTORCH_INFERENCE, registry.uri, registry.group, registry.endpoints.role)
    package = json.loads(printed.splitlines()[-1])
    described = registry.sagemaker.describe_model_package(ModelPackageName=package)
    assert described["ModelApprovalStatus"] == "Approved" and described["ApprovalDescription"] == "fast enough"
    assert described["CustomerMetadataProperties"] == {"team": "growth", "region": "eu"}
    assert described["ModelLifeCycle"] == {"Stage": "Development", "StageStatus": "Ready"}
    assert described["AdditionalInferenceSpecifications"][0]["Name"] == "small"
    endpoint = registry.endpoints.wait(registry.group)
    assert endpoint["EndpointStatus"] == "InService", endpoint.get("FailureReason")
    answer = registry.endpoints.invoke(registry.group, b"4")
    assert json.load(answer["Body"]) == {"doubled": 8}
    registry.endpoints.delete(registry.group)


SDK_CARD = """
import json, sys
import sagemaker
from sagemaker.model_card import (
    AdditionalInformation, BusinessDetails, EvaluationJob, IntendedUses, Metric, MetricGroup, MetricTypeEnum,
    ModelCard, ModelCardStatusEnum, ModelOverview, ObjectiveFunction, Function, TrainingDetails,
)

name, output = sys.argv[1:]
session = sagemaker.Session()
group = MetricGroup(name="binary", metric_data=[
    Metric(name="auc", type=MetricTypeEnum.NUMBER, value=0.93),
    Metric(name="roc", type=MetricTypeEnum.LINEAR_GRAPH, value=[[0, 0], [0.1, 0.8], [1, 1]], x_axis_name="fpr", y_axis_name="tpr"),
    Metric(name="confusion", type=MetricTypeEnum.MATRIX, value=[[5, 1], [2, 7]], x_axis_name=["n", "p"], y_axis_name=["n", "p"]),
])
card = ModelCard(
    name=name, status=ModelCardStatusEnum.DRAFT, sagemaker_session=session,
    model_overview=ModelOverview(model_name="churn", model_version=1),
    intended_uses=IntendedUses(purpose_of_model="Who leaves?", risk_rating="Low"),
    business_details=BusinessDetails(business_problem="Customers leave."),
    training_details=TrainingDetails(objective_function=ObjectiveFunction(function=Function(function="Maximize", facet="AUC"))),
    evaluation_details=[EvaluationJob(name="holdout", datasets=["s3://b/holdout"], metric_groups=[group])],
    additional_information=AdditionalInformation(custom_details={"owner": "growth"}),
)
card.create()
card.business_details.business_problem = "Customers leave us."
card.update(status=ModelCardStatusEnum.APPROVED)
loaded = ModelCard.load(name=name, sagemaker_session=session)
print(json.dumps({
    "pdf": loaded.export_pdf(s3_output_path=output),
    "status": loaded.status,
    "problem": loaded.business_details.business_problem,
    "versions": [version["ModelCardVersion"] for version in loaded.get_version_history()],
    "jobs": len(loaded.list_export_jobs()["ModelCardExportJobSummaries"]),
}))
"""


def test_the_sdk_writes_and_exports_a_model_card(registry, run_python, tmp_path):
    script = tmp_path / "card.py"
    script.write_text(SDK_CARD)
    output = f"s3://{registry.bucket}/cards/{registry.group}"
    told = json.loads(run_python(script, registry.group, output).splitlines()[-1])
    assert (told["status"], told["problem"]) == ("Approved", "Customers leave us.")
    assert (told["versions"], told["jobs"]) == ([2, 1], 1)
    key = told["pdf"].removeprefix(f"s3://{registry.bucket}/")
    pdf = registry.s3.get_object(Bucket=registry.bucket, Key=key)
    assert pdf["ContentType"] == "application/pdf" and pdf["Body"].read().startswith(b"%PDF-")
    page = registry.s3.get_object(Bucket=registry.bucket, Key=key.replace(".pdf", ".html"))["Body"].read().decode()
    assert "Customers leave us." in page and "holdout" in page
    registry.sagemaker.delete_model_card(ModelCardName=registry.group)
    missing = registry.sagemaker.exceptions.ResourceNotFound
    with pytest.raises(missing):
        registry.sagemaker.describe_model_card(ModelCardName=registry.group)
