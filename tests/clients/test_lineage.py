"""Lineage with the SDK's own classes, and with what the server records by itself."""

import uuid

import pytest

from conftest import poll
from test_experiments import lab, session  # noqa: F401


@pytest.fixture
def unique():
    return uuid.uuid4().hex[:8]


def test_vertices_are_made_joined_and_queried(session, unique):  # noqa: F811
    from sagemaker.lineage.action import Action
    from sagemaker.lineage.artifact import Artifact
    from sagemaker.lineage.association import Association
    from sagemaker.lineage.context import Context
    from sagemaker.lineage.query import LineageEntityEnum, LineageFilter, LineageQuery, LineageQueryDirectionEnum, LineageSourceEnum

    data = Artifact.create(
        artifact_name="data", source_uri=f"s3://b/{unique}", artifact_type="DataSet", properties={"a": "1"}, sagemaker_session=session
    )
    action = Action.create(
        action_name=f"act-{unique}", source_uri="x", action_type="ModelDeployment", status="Completed", sagemaker_session=session
    )
    context = Context.create(context_name=f"con-{unique}", source_uri="y", context_type="Endpoint", sagemaker_session=session)
    for source, destination in ((data.artifact_arn, action.action_arn), (action.action_arn, context.context_arn)):
        Association.create(
            source_arn=source, destination_arn=destination, association_type="ContributedTo", sagemaker_session=session
        )
    listed = list(Association.list(source_arn=data.artifact_arn, destination_type="Action", sagemaker_session=session))
    assert [one.destination_arn for one in listed] == [action.action_arn]
    result = LineageQuery(session).query(
        start_arns=[context.context_arn],
        query_filter=LineageFilter(entities=[LineageEntityEnum.ARTIFACT], sources=[LineageSourceEnum.DATASET]),
        direction=LineageQueryDirectionEnum.ASCENDANTS,
        include_edges=False,
    )
    assert [vertex.arn for vertex in result.vertices] == [data.artifact_arn]
    assert result.vertices[0].to_lineage_object().source.source_uri == f"s3://b/{unique}"
    data.properties["b"] = "2"
    data.save()
    assert Artifact.load(data.artifact_arn, sagemaker_session=session).properties == {"a": "1", "b": "2"}
    assert [one.artifact_arn for one in Artifact.list(source_uri=f"s3://b/{unique}", sagemaker_session=session)] == [data.artifact_arn]
    context.delete(disassociate=True)
    action.delete(disassociate=True)
    data.delete(disassociate=True)
    assert not list(Artifact.list(source_uri=f"s3://b/{unique}", sagemaker_session=session))


def test_models_of_an_object_are_found(lab, session, unique):  # noqa: F811
    s3, sagemaker, bucket = session.boto_session.client("s3"), session.sagemaker_client, session.default_bucket()
    s3.put_object(Bucket=bucket, Key=f"{unique}/data/rows.csv", Body=b"1,2\n")
    role = lab.client("iam").get_role(RoleName="ModelyardExecutionRole")["Role"]["Arn"]
    name = f"train-{unique}"
    arn = sagemaker.create_training_job(
        TrainingJobName=name,
        AlgorithmSpecification={
            "TrainingImage": "example.com/with-sdk:1",
            "TrainingInputMode": "File",
            "ContainerEntrypoint": ["/bin/sh", "-c"],
            "ContainerArguments": ["cp /opt/ml/input/data/train/rows.csv /opt/ml/model/"],
        },
        RoleArn=role,
        InputDataConfig=[
            {
                "ChannelName": "train",
                "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{bucket}/{unique}/data"}},
            }
        ],
        OutputDataConfig={"S3OutputPath": f"s3://{bucket}/{unique}/out"},
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 10},
        StoppingCondition={"MaxRuntimeInSeconds": 300},
    )["TrainingJobArn"]
    describe = lambda: sagemaker.describe_training_job(TrainingJobName=name)  # noqa: E731
    poll(lambda: describe()["TrainingJobStatus"] not in ("InProgress", "Stopping"), "the job ends")
    model_data = describe()["ModelArtifacts"]["S3ModelArtifacts"]
    sagemaker.create_model(
        ModelName=name, ExecutionRoleArn=role, PrimaryContainer={"Image": "image:1", "ModelDataUrl": model_data}
    )
    uri = f"s3://{bucket}/{unique}/data/rows.csv"
    printed = poll(lambda: (text := lab.command("lineage", uri)) and name in text and text, "the data is recorded")
    assert "as the object is now" in printed
    assert arn in printed and model_data in printed and f":model/{name}" in printed, printed
    # And back again, with the SDK's own query.
    from sagemaker.lineage.artifact import Artifact, ModelArtifact

    (found,) = Artifact.list(source_uri=model_data, sagemaker_session=session)
    model = ModelArtifact.load(found.artifact_arn, sagemaker_session=session)
    (data,) = model.dataset_artifacts()
    assert data.source.source_uri == f"s3://{bucket}/{unique}/data"
    assert model.training_job_arns() == [arn]
    assert "No recorded job" in lab.command("lineage", f"s3://{bucket}/{unique}/data/other.csv")
