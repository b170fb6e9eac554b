"""Experiments with the SDK's own `Run` API: logged, loaded, listed, and from within a training job."""

import json
import sys
import uuid

import boto3
import pytest

from conftest import Server, archive, poll, stop_all

EXPERIMENTS_IMAGE = "example.com/with-sdk:1"


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A server whose jobs run on this very interpreter, which has the SDK."""
    folder = tmp_path_factory.mktemp("experiments")
    images = folder / "images.toml"
    images.write_text(
        f"[[image]]\nname = 'with-sdk'\npattern = 'example\\.com/with-sdk:.*'\ninterpreter = {json.dumps(sys.executable)}\n"
    )
    server = Server(folder / "data", "--images", images).start()
    yield server
    stop_all(server)


@pytest.fixture(scope="module")
def session(lab):
    """An SDK session in an environment that points at the server, as `modelyard env` sets it."""
    import sagemaker

    connection = lab.connection
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", lab.endpoint)
        patch.setenv("AWS_ACCESS_KEY_ID", connection["access_key_id"])
        patch.setenv("AWS_SECRET_ACCESS_KEY", connection["secret_access_key"])
        boto = boto3.Session(region_name="us-east-1")
        bucket = "sagemaker-us-east-1-" + connection["account"]
        boto.client("s3").create_bucket(Bucket=bucket)
        session = sagemaker.Session(boto_session=boto, default_bucket=bucket)
        # Asked of STS at a host that is written into the SDK; only a process that Python starts with the hook reaches it.
        patch.setattr(session, "_get_account_id_if_default_bucket", lambda bucket: None)
        yield session


@pytest.fixture
def experiment():
    return f"exp-{uuid.uuid4().hex[:8]}"


def component(session, run):
    return session.sagemaker_client.describe_trial_component(
        TrialComponentName=f"{run.experiment_name}-{run.run_name}"
    )


def test_a_run_keeps_what_is_logged(session, experiment, tmp_path):
    from sagemaker.experiments.run import Run

    (tmp_path / "notes.txt").write_text("notes")
    with Run(experiment_name=experiment, run_name="first", sagemaker_session=session) as run:
        run.log_parameter("rate", 0.1)
        run.log_parameters({"kind": "tree", "depth": 3})
        for step in range(25):
            run.log_metric("loss", 1 / (step + 1), step=step)
        run.log_file(str(tmp_path / "notes.txt"), name="notes", is_output=False)
        run.log_artifact("where", "s3://elsewhere/x")
        run.log_confusion_matrix([0, 1, 1], [0, 1, 0], title="confusion")
        run.log_roc_curve([0, 1, 1], [0.1, 0.9, 0.4], title="roc")
        run.log_precision_recall([0, 1, 1], [0.1, 0.9, 0.4], positive_label=1, title="precision")
    shown = component(session, run)
    assert shown["Status"]["PrimaryStatus"] == "Completed"
    assert shown["Parameters"]["rate"] == {"NumberValue": 0.1}
    assert shown["Parameters"]["kind"] == {"StringValue": "tree"}
    (loss,) = shown["Metrics"]
    assert (loss["Count"], loss["Max"], loss["Last"]) == (25, 1.0, pytest.approx(0.04))
    assert shown["OutputArtifacts"]["where"]["Value"] == "s3://elsewhere/x"
    bucket, key = shown["InputArtifacts"]["notes"]["Value"].removeprefix("s3://").split("/", 1)
    assert session.boto_session.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read() == b"notes"
    produced = session.sagemaker_client.list_associations(SourceArn=shown["TrialComponentArn"])["AssociationSummaries"]
    assert {edge["DestinationType"] for edge in produced} == {"ConfusionMatrix", "ROCCurve", "PrecisionRecallCurve"}
    metrics = session.sagemaker_metrics_client.batch_get_metrics(
        MetricQueries=[
            {
                "MetricName": "loss",
                "ResourceArn": shown["TrialComponentArn"],
                "MetricStat": "Last",
                "Period": "IterationNumber",
                "XAxisType": "IterationNumber",
                "Start": 3,
                "End": 4,
            }
        ]
    )["MetricQueryResults"][0]
    assert (metrics["XAxisValues"], metrics["MetricValues"]) == ([3, 4], [0.25, 0.2])


def test_runs_are_loaded_and_listed(session, experiment):
    from sagemaker.experiments.run import Run, SortByType, list_runs, load_run

    for name in ("one", "two"):
        with Run(experiment_name=experiment, run_name=name, sagemaker_session=session) as run:
            run.log_parameter("name", name)
    with load_run(experiment_name=experiment, run_name="one", sagemaker_session=session) as run:
        run.log_parameter("more", 1)
    assert set(component(session, run)["Parameters"]) == {"name", "more"}
    listed = list_runs(experiment_name=experiment, sort_by=SortByType.NAME, sagemaker_session=session)
    assert sorted(run.run_name for run in listed) == ["one", "two"]
    # A run that fails says so, and why.
    with pytest.raises(RuntimeError), Run(experiment_name=experiment, run_name="bad", sagemaker_session=session) as run:
        raise RuntimeError("it went wrong")
    assert component(session, run)["Status"] == {"PrimaryStatus": "Failed", "Message": "it went wrong"}


def test_everything_of_an_experiment_is_deleted(session, experiment):
    from sagemaker.experiments.experiment import Experiment
    from sagemaker.experiments.run import Run

    with Run(experiment_name=experiment, run_name="one", sagemaker_session=session) as run:
        run.log_metric("m", 1.0)
    loaded = Experiment.load(experiment, sagemaker_session=session)
    loaded._delete_all("--force")
    found = session.sagemaker_client.list_trial_components(MaxResults=100)["TrialComponentSummaries"]
    assert not [one for one in found if one["TrialComponentName"].startswith(experiment)]


def test_a_job_logs_to_the_run_that_started_it(lab, session, experiment):
    from sagemaker.experiments.run import Run

    s3 = session.boto_session.client("s3")
    source = {
        "train.py": """
        from sagemaker.experiments import load_run
        from sagemaker.session import Session

        with load_run(sagemaker_session=Session()) as run:
            run.log_parameter("inside", 1)
            for step in range(12):
                run.log_metric("accuracy", step / 12, step=step)
        print("score=0.75")
        """
    }
    s3.put_object(Bucket=session.default_bucket(), Key="source.tar.gz", Body=archive(source))
    role = lab.client("iam").get_role(RoleName="ModelyardExecutionRole")["Role"]["Arn"]
    name = f"{experiment}-job"
    with Run(experiment_name=experiment, run_name="run", sagemaker_session=session) as run:
        session.sagemaker_client.create_training_job(
            TrainingJobName=name,
            AlgorithmSpecification={
                "TrainingImage": EXPERIMENTS_IMAGE,
                "TrainingInputMode": "File",
                "MetricDefinitions": [{"Name": "score", "Regex": "score=([0-9.]+)"}],
            },
            RoleArn=role,
            HyperParameters={
                "sagemaker_program": '"train.py"',
                "sagemaker_submit_directory": json.dumps(f"s3://{session.default_bucket()}/source.tar.gz"),
            },
            OutputDataConfig={"S3OutputPath": f"s3://{session.default_bucket()}/models"},
            ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 10},
            StoppingCondition={"MaxRuntimeInSeconds": 300},
            ExperimentConfig=run.experiment_config,
        )

        def ended():
            job = session.sagemaker_client.describe_training_job(TrainingJobName=name)
            return job if job["TrainingJobStatus"] not in ("InProgress", "Stopping") else None

        job = poll(ended, "the job ends")
    assert job["TrainingJobStatus"] == "Completed", lab.command("jobs", "why", name)
    shown = component(session, run)
    assert shown["Parameters"]["inside"] == {"NumberValue": 1.0}
    assert [(one["MetricName"], one["Count"]) for one in shown["Metrics"]] == [("accuracy", 12)]
    own = session.sagemaker_client.list_trial_components(SourceArn=job["TrainingJobArn"])["TrialComponentSummaries"]
    assert [one["TrialComponentName"] for one in own] == [f"{name}-aws-training-job"]
    of_job = session.sagemaker_client.describe_trial_component(TrialComponentName=own[0]["TrialComponentName"])
    assert of_job["Status"]["PrimaryStatus"] == "Completed"
    assert [(one["MetricName"], one["Last"]) for one in of_job["Metrics"]] == [("score", 0.75)]
