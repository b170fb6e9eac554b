"""Spark steps of pipelines with the SDKs' own classes: on a cluster, on a cluster of their own, on EMR Serverless."""

import gzip
import json
import os
import textwrap
import uuid

import pytest

from conftest import poll

# The test catalogue has a Spark in this release, and none in the other, whose environment is there at once.
WITH_SPARK, WITHOUT_SPARK = "emr-7.1.0", "emr-6.15.0"

APPLICATION = """
    import sys
    from pyspark.sql import SparkSession

    spark = SparkSession.builder.appName("sums").getOrCreate()
    rows = spark.read.csv(sys.argv[1], header=True, inferSchema=True)
    print("rows", rows.count(), "master", spark.sparkContext.master)
    rows.groupBy("k").sum("v").coalesce(1).write.mode("overwrite").csv(sys.argv[2], header=True)
"""


@pytest.fixture
def data(boto, bucket):
    """A prefix with an application and its input."""
    s3, prefix = boto("s3"), f"emr-{uuid.uuid4().hex[:8]}"
    s3.put_object(Bucket=bucket, Key=f"{prefix}/app.py", Body=textwrap.dedent(APPLICATION).encode())
    rows = "".join(f"{number % 3},{number}\n" for number in range(300))
    s3.put_object(Bucket=bucket, Key=f"{prefix}/in/rows.csv", Body=("k,v\n" + rows).encode())
    return f"s3://{bucket}/{prefix}"


def read(boto, uri):
    """The objects below a URI, by the end of their names."""
    bucket, prefix = uri.removeprefix("s3://").split("/", 1)
    s3 = boto("s3")
    found = s3.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])
    return {one["Key"]: s3.get_object(Bucket=bucket, Key=one["Key"])["Body"].read() for one in found}


def check_sums(boto, folder):
    [table] = [content for key, content in read(boto, folder).items() if key.endswith(".csv")]
    lines = sorted(table.decode().split())
    assert lines == ["0,14850", "1,14950", "2,15050", "k,sum(v)"], lines


def cluster(client, role, name, release=WITHOUT_SPARK, **more):
    return client.run_job_flow(
        Name=name,
        ReleaseLabel=release,
        Applications=[{"Name": "Spark"}],
        JobFlowRole=role.split("/")[-1],
        ServiceRole="EMR_DefaultRole",
        Instances={
            "KeepJobFlowAliveWhenNoSteps": True,
            "InstanceGroups": [{"InstanceRole": "MASTER", "InstanceType": "m5.xlarge", "InstanceCount": 1}],
        },
        **more,
    )["JobFlowId"]


def started(boto, steps, role, name):
    """Starts a pipeline of step dictionaries."""
    sagemaker = boto("sagemaker")
    definition = {"Version": "2020-12-01", "Steps": steps}
    sagemaker.create_pipeline(PipelineName=name, RoleArn=role, PipelineDefinition=json.dumps(definition))
    return sagemaker.start_pipeline_execution(PipelineName=name)["PipelineExecutionArn"]


def ended(boto, arn):
    sagemaker = boto("sagemaker")

    def look():
        status = sagemaker.describe_pipeline_execution(PipelineExecutionArn=arn)["PipelineExecutionStatus"]
        return status if status in ("Succeeded", "Failed", "Stopped") else None

    status = poll(look, f"{arn} ends")
    steps = sagemaker.list_pipeline_execution_steps(PipelineExecutionArn=arn)["PipelineExecutionSteps"]
    return status, {step["StepName"]: step for step in steps}


def test_a_spark_step_on_a_cluster(boto, bucket, role, data, run_python, tmp_path):
    emr = boto("emr")
    logs = f"{data}/logs/"
    own = [{"Classification": "spark-defaults", "Properties": {"spark.app.greeting": "hello"}}]
    id = cluster(emr, role, "emr-shared", WITH_SPARK, LogUri=logs, Configurations=own)
    script = """
        import sys
        from sagemaker.workflow.emr_step import EMRStep, EMRStepConfig
        from sagemaker.workflow.pipeline import Pipeline
        from sagemaker.workflow.pipeline_context import PipelineSession
        role, cluster, data = sys.argv[1:]
        config = EMRStepConfig(
            jar="command-runner.jar",
            args=["spark-submit", "--deploy-mode", "cluster", "--master", "yarn", f"{data}/app.py", f"{data}/in/", f"{data}/out"],
        )
        step = EMRStep(name="Sums", display_name="Sums", description="d", cluster_id=cluster, step_config=config)
        pipeline = Pipeline(name="emr-sums", steps=[step], sagemaker_session=PipelineSession())
        pipeline.upsert(role)
        execution = pipeline.start()
        execution.wait(delay=1, max_attempts=500)
        print(execution.arn)
    """
    (tmp_path / "run.py").write_text(textwrap.dedent(script))
    arn = run_python(tmp_path / "run.py", role, id, data).strip().splitlines()[-1]
    status, steps = ended(boto, arn)
    assert status == "Succeeded", steps
    check_sums(boto, f"{data}/out")
    metadata = steps["Sums"]["Metadata"]["EMR"]
    assert metadata["ClusterId"] == id
    assert metadata["LogFilePath"] == f"{logs}{id}/steps/{metadata['StepId']}"
    printed = {key.split("/")[-1]: gzip.decompress(content).decode() for key, content in read(boto, metadata["LogFilePath"]).items()}
    assert "rows 300 master local[" in printed["stdout.gz"] and "spark-submit" in printed["stderr.gz"]
    step = emr.describe_step(ClusterId=id, StepId=metadata["StepId"])["Step"]
    assert step["Status"]["State"] == "COMPLETED" and step["Config"]["Jar"] == "command-runner.jar"
    assert emr.describe_cluster(ClusterId=id)["Cluster"]["Status"]["State"] == "WAITING"
    emr.terminate_job_flows(JobFlowIds=[id])


def test_a_cluster_ends_with_its_step_and_a_failure_has_its_reason(boto, role, server):
    config = {
        "ReleaseLabel": WITHOUT_SPARK,
        "JobFlowRole": role.split("/")[-1],
        "Instances": {"InstanceFleets": [{"InstanceFleetType": "MASTER", "InstanceTypeConfigs": [{"InstanceType": "m6g.xlarge"}]}]},
    }
    code = "import sys; print('bad row', sys.argv[1:]); raise ValueError('seven rows are missing')"
    jar = {"Jar": "command-runner.jar", "Args": ["python3", "-c", code, "x"]}
    arguments = {"ClusterConfig": config, "StepConfig": {"HadoopJarStep": jar}}
    arn = started(boto, [{"Name": "Broken", "Type": "EMR", "Arguments": arguments}], role, "emr-broken")
    status, steps = ended(boto, arn)
    assert status == "Failed"
    assert "ValueError: seven rows are missing" in steps["Broken"]["FailureReason"]
    metadata = steps["Broken"]["Metadata"]["EMR"]
    emr = boto("emr")
    step = emr.describe_step(ClusterId=metadata["ClusterId"], StepId=metadata["StepId"])["Step"]["Status"]
    assert step["State"] == "FAILED" and "seven rows" in step["FailureDetails"]["Message"]

    def over():
        return emr.describe_cluster(ClusterId=metadata["ClusterId"])["Cluster"]["Status"]

    poll(lambda: over()["State"] == "TERMINATED", "the cluster ends with its step")
    assert over()["StateChangeReason"]["Code"] == "ALL_STEPS_COMPLETED"
    job = f"emr-{metadata['ClusterId']}-{metadata['StepId']}".lower()
    assert "seven rows are missing" in server.command("jobs", "why", job)


def test_a_killed_server_goes_on_with_a_step_and_a_stop_cancels_it(own_server):
    boto, emr = own_server.client, own_server.client("emr")
    role = boto("iam").get_role(RoleName="ModelyardExecutionRole")["Role"]["Arn"]
    id = cluster(emr, role, "emr-killed")
    jar = {"Jar": "command-runner.jar", "Args": ["bash", "-c", "echo it works; exec sleep 1000"]}
    arguments = {"ClusterId": id, "StepConfig": {"HadoopJarStep": jar}}
    arn = started(boto, [{"Name": "Long", "Type": "EMR", "Arguments": arguments}], role, "emr-long")

    def runs():
        [job] = boto("sagemaker").list_processing_jobs(NameContains="emr-")["ProcessingJobSummaries"] or [{}]
        if not job:
            return None
        described = boto("sagemaker").describe_processing_job(ProcessingJobName=job["ProcessingJobName"])
        return "ProcessingStartTime" in described

    def states():
        return [step["Status"]["State"] for step in emr.list_steps(ClusterId=id)["Steps"]]

    # The first kill may come before the step's job is there, the second while it runs.
    poll(lambda: emr.list_steps(ClusterId=id)["Steps"], "the step was added")
    own_server.kill()
    own_server.start()
    poll(runs, "the step runs")
    own_server.kill()
    own_server.start()
    assert states() == ["RUNNING"], "there is one step"
    boto("sagemaker").stop_pipeline_execution(PipelineExecutionArn=arn)
    status, steps = ended(boto, arn)
    assert status == "Stopped" and steps["Long"]["StepStatus"] == "Stopped"
    assert states() == ["CANCELLED"]
    assert emr.describe_cluster(ClusterId=id)["Cluster"]["Status"]["State"] == "WAITING"
    emr.terminate_job_flows(JobFlowIds=[id])


def test_a_spark_step_on_emr_serverless(boto, role, data, run_python, tmp_path):
    script = """
        import sys
        from sagemaker.mlops.workflow.emr_serverless_step import EMRServerlessJobConfig, EMRServerlessStep
        from sagemaker.mlops.workflow.pipeline import Pipeline
        from sagemaker.core.workflow.pipeline_context import PipelineSession
        role, data = sys.argv[1:]
        config = EMRServerlessJobConfig(
            job_driver={"sparkSubmit": {
                "entryPoint": f"{data}/app.py",
                "entryPointArguments": [f"{data}/in/", f"{data}/out"],
                "sparkSubmitParameters": "--conf spark.driver.memory=1g --conf spark.executor.cores=2",
            }},
            execution_role_arn=role,
            configuration_overrides={"monitoringConfiguration": {"s3MonitoringConfiguration": {"logUri": f"{data}/logs"}}},
            execution_timeout_minutes=30,
        )
        step = EMRServerlessStep(
            name="Sums", display_name="Sums", description="d", job_config=config,
            application_config={"name": "sums", "releaseLabel": "emr-7.1.0", "type": "SPARK"},
        )
        pipeline = Pipeline(name="emr-serverless-sums", steps=[step], sagemaker_session=PipelineSession())
        pipeline.upsert(role)
        execution = pipeline.start()
        execution.wait(delay=1, max_attempts=500)
        print(execution.arn)
    """
    (tmp_path / "run.py").write_text(textwrap.dedent(script))
    python = os.environ["MODELYARD_SDK3_PYTHON"]
    arn = run_python(tmp_path / "run.py", role, data, python=python).strip().splitlines()[-1]
    status, steps = ended(boto, arn)
    assert status == "Succeeded", steps
    check_sums(boto, f"{data}/out")
    metadata = steps["Sums"]["Metadata"]["EMRServerless"]
    serverless = boto("emr-serverless")
    names = {"applicationId": metadata["ApplicationId"], "jobRunId": metadata["JobRunId"]}
    run = serverless.get_job_run(**names)["jobRun"]
    assert run["state"] == "SUCCESS" and run["executionTimeoutMinutes"] == 30
    printed = read(boto, metadata["LogFilePath"])
    [stdout] = [gzip.decompress(content) for key, content in printed.items() if key.endswith("SPARK_DRIVER/stdout.gz")]
    assert b"rows 300" in stdout
    assert serverless.get_application(applicationId=names["applicationId"])["application"]["state"] == "STARTED"
    serverless.stop_application(applicationId=names["applicationId"])
