"""Shadow variants: callers see production alone, both answers are compared, and what is known survives a kill."""

import json

import pytest

from conftest import Endpoints, poll

SCORE = """
import json, os
def model_fn(model_dir): return None
def input_fn(body, content_type): return json.loads(body)
def predict_fn(rows, model): return [{{"score": {score}, "label": {label}}} for row in rows]
def output_fn(prediction, accept): return json.dumps(prediction), "application/json"
"""

PRODUCTION = SCORE.format(score="row / 10", label='"high" if row > 5 else "low"')
CANDIDATE = SCORE.format(score="row / 10 + 0.25", label='"high" if row > 4 else "low"')
HANGS = SCORE.format(score="__import__('time').sleep(600)", label="0")


def variant(name, model, weight=1.0):
    return {
        "VariantName": name,
        "ModelName": model,
        "InitialInstanceCount": 1,
        "InstanceType": "ml.m5.large",
        "InitialVariantWeight": weight,
    }


def deploy(endpoints, name, production, shadow, weight=1.0, **config):
    endpoints.model(f"{name}-p", production)
    endpoints.model(f"{name}-s", shadow)
    endpoints.sagemaker.create_endpoint_config(
        EndpointConfigName=name,
        ProductionVariants=[variant("production", f"{name}-p")],
        ShadowProductionVariants=[variant("candidate", f"{name}-s", weight)],
        **config,
    )
    endpoints.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    endpoint = endpoints.wait(name)
    assert endpoint["EndpointStatus"] == "InService", endpoint.get("FailureReason")
    return endpoint


def ask(endpoints, name, row):
    answer = endpoints.invoke(name, json.dumps([row]))
    assert answer["InvokedProductionVariant"] == "production"
    return json.loads(answer["Body"].read())


def picture(server, name):
    return json.loads(server.command("endpoints", "shadow", name, "--output", "json"))


def compared(server, name, count):
    return poll(lambda: (lambda now: now if now["Requests"] >= count else None)(picture(server, name)), f"{count} are compared")


def captured(endpoints, prefix):
    pages = endpoints.s3.get_paginator("list_objects_v2").paginate(Bucket=endpoints.bucket, Prefix=prefix)
    keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
    bodies = [endpoints.s3.get_object(Bucket=endpoints.bucket, Key=key)["Body"].read() for key in keys]
    return [json.loads(line) for body in bodies for line in body.splitlines()]


def test_a_shadow_is_compared_captured_and_kept(own_server):
    role = own_server.client("iam").get_role(RoleName="ModelyardExecutionRole")["Role"]["Arn"]
    bucket = "shadow-captures"
    own_server.client("s3").create_bucket(Bucket=bucket)
    endpoints = Endpoints(own_server, bucket, role)
    capture = {
        "EnableCapture": True,
        "InitialSamplingPercentage": 100,
        "DestinationS3Uri": f"s3://{bucket}/captured",
        "CaptureOptions": [{"CaptureMode": "InputAndOutput"}],
        "CaptureContentTypeHeader": {"JsonContentTypes": ["application/json"]},
    }
    endpoint = deploy(endpoints, "shadow-kept", PRODUCTION, CANDIDATE, DataCaptureConfig=capture)
    [shadow] = endpoint["ShadowProductionVariants"]
    assert (shadow["VariantName"], shadow["CurrentWeight"], shadow["CurrentInstanceCount"]) == ("candidate", 1.0, 1)
    assert [one["VariantName"] for one in endpoint["ProductionVariants"]] == ["production"]
    for row in range(40):
        assert ask(endpoints, "shadow-kept", row % 10)[0]["score"] == row % 10 / 10
    with pytest.raises(endpoints.runtime.exceptions.ClientError, match="candidate was not found"):
        endpoints.invoke("shadow-kept", b"[1]", TargetVariant="candidate")

    known = compared(own_server, "shadow-kept", 40)
    assert (known["Requests"], known["Different"], known["Dropped"], known["SharePercent"]) == (40, 40, 0, 100.0)
    assert known["MaxAbsoluteDifference"] == pytest.approx(0.25)
    # One row of ten gets another label.
    assert known["LabelDisagreementRate"] == pytest.approx(0.1)
    assert known["Verdict"] in ("Different", "Worse"), known["Sentence"]
    assert "40 of 40 answers differ (100.0 %" in known["Sentence"]
    assert known["Examples"][0]["Outcome"] == "different" and len(known["Examples"]) == 20
    assert "40 of 40 answers differ" in own_server.command("endpoints", "shadow", "shadow-kept")

    # Both sides of a request are captured under one id.
    ids = {}
    for name in ("production", "candidate"):
        poll(lambda: len(captured(endpoints, f"captured/shadow-kept/{name}/")) >= 40, f"answers of {name} are captured")
        ids[name] = sorted(line["eventMetadata"]["eventId"] for line in captured(endpoints, f"captured/shadow-kept/{name}/"))
    assert ids["production"] == ids["candidate"] and len(set(ids["production"])) == 40

    # The service's metrics have the shadow as a variant.
    metrics = own_server.client("cloudwatch")
    dimensions = [{"Name": "EndpointName", "Value": "shadow-kept"}, {"Name": "VariantName", "Value": "candidate"}]
    found = poll(
        lambda: metrics.list_metrics(Namespace="AWS/SageMaker", MetricName="Invocations", Dimensions=dimensions)["Metrics"],
        "the shadow has metrics",
    )
    assert found

    # What was known a second ago is known after a kill; no more than that is lost.
    poll(lambda: stored(own_server) == 40, "the counts are stored")
    own_server.kill()
    own_server.start()
    endpoints = Endpoints(own_server, bucket, role)
    assert picture(own_server, "shadow-kept")["Requests"] == 40
    ask(endpoints, "shadow-kept", 1)
    assert compared(own_server, "shadow-kept", 41)["Requests"] == 41

    # A configuration without a shadow ends it; what was found stays to be seen.
    endpoints.sagemaker.create_endpoint_config(
        EndpointConfigName="shadow-kept-plain", ProductionVariants=[variant("production", "shadow-kept-p")]
    )
    endpoints.sagemaker.update_endpoint(EndpointName="shadow-kept", EndpointConfigName="shadow-kept-plain")
    assert "ShadowProductionVariants" not in endpoints.wait("shadow-kept")
    ask(endpoints, "shadow-kept", 1)
    # The last second of it is stored within a second.
    known = compared(own_server, "shadow-kept", 41)
    assert (known["IsRunning"], known["Requests"]) == (False, 41)


def stored(server):
    """Compared requests that are in the database, as a restart would find them."""
    import sqlite3

    with sqlite3.connect(f"file:{server.data_dir}/modelyard.db?mode=ro", uri=True) as database:
        rows = database.execute("SELECT document FROM resources WHERE kind = 'shadow-comparison'").fetchall()
    counts = [json.loads(row[0]) for row in rows]
    return sum(one["Equal"] + one["Different"] for one in counts)


def test_a_shadow_that_hangs_is_not_noticed(endpoints, server):
    name = "shadow-hangs"
    deploy(endpoints, name, PRODUCTION, HANGS, weight=0.5)
    assert picture(server, name)["SharePercent"] == 50.0
    change = {"VariantName": "candidate", "DesiredWeight": 1.0}
    endpoints.sagemaker.update_endpoint_weights_and_capacities(EndpointName=name, DesiredWeightsAndCapacities=[change])
    assert endpoints.wait(name)["ShadowProductionVariants"][0]["DesiredWeight"] == 1.0
    for row in range(300):
        assert ask(endpoints, name, row % 10)[0]["score"] == row % 10 / 10
    # As many wait for it as there is room for; the others were dropped.
    known = poll(lambda: (lambda now: now if now["Dropped"] else None)(picture(server, name)), "copies are dropped")
    assert known["Dropped"] == 300 - 256 and known["Requests"] == 0
    endpoints.delete(name)


def model_variant(name, model):
    infrastructure = {"InfrastructureType": "RealTimeInference", "RealTimeInferenceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1}}
    return {"VariantName": name, "ModelName": model, "InfrastructureConfig": infrastructure}


def shadow_mode(percentage):
    shadow = {"ShadowModelVariantName": "candidate", "SamplingPercentage": percentage}
    return {"SourceModelVariantName": "production", "ShadowModelVariants": [shadow]}


def create_experiment(endpoints, name, endpoint, shadow, **more):
    endpoints.sagemaker.create_inference_experiment(
        Name=name,
        Type="ShadowMode",
        RoleArn=endpoints.role,
        EndpointName=endpoint,
        ModelVariants=[model_variant("production", f"{endpoint}-p"), model_variant("candidate", shadow)],
        ShadowModeConfig=shadow_mode(100),
        **more,
    )


def wait_for_experiment(endpoints, name, status):
    def reached():
        shown = endpoints.sagemaker.describe_inference_experiment(Name=name)
        assert shown["Status"] == status or shown["Status"] not in ("Completed", "Cancelled"), shown
        return shown if shown["Status"] == status else None

    return poll(reached, f"{name} is {status}")


def test_an_experiment_is_started_changed_killed_and_promoted(own_server):
    import datetime

    role = own_server.client("iam").get_role(RoleName="ModelyardExecutionRole")["Role"]["Arn"]
    bucket, endpoint, name = "shadow-tests", "shadow-test", "shadow-test-one"
    own_server.client("s3").create_bucket(Bucket=bucket)
    endpoints = Endpoints(own_server, bucket, role)
    endpoints.model(f"{endpoint}-p", PRODUCTION)
    endpoints.model(f"{endpoint}-s", CANDIDATE)
    endpoints.sagemaker.create_endpoint_config(
        EndpointConfigName=endpoint, ProductionVariants=[variant("production", f"{endpoint}-p")]
    )
    endpoints.sagemaker.create_endpoint(EndpointName=endpoint, EndpointConfigName=endpoint)
    assert endpoints.wait(endpoint)["EndpointStatus"] == "InService"

    # One that waits is started by hand.
    now = datetime.datetime.now(datetime.timezone.utc)
    schedule = {"StartTime": now + datetime.timedelta(hours=1), "EndTime": now + datetime.timedelta(hours=2)}
    storage = {"Destination": f"s3://{bucket}/stored", "ContentType": {"JsonContentTypes": ["application/json"]}}
    create_experiment(endpoints, name, endpoint, f"{endpoint}-s", Schedule=schedule, DataStorageConfig=storage)
    assert endpoints.sagemaker.describe_inference_experiment(Name=name)["Status"] == "Created"
    endpoints.sagemaker.start_inference_experiment(Name=name)
    shown = wait_for_experiment(endpoints, name, "Running")
    assert [one["Status"] for one in shown["ModelVariants"]] == ["InService", "InService"]
    assert shown["EndpointMetadata"]["EndpointStatus"] == "InService"
    for refused in (
        lambda: endpoints.sagemaker.delete_inference_experiment(Name=name),
        lambda: endpoints.sagemaker.start_inference_experiment(Name=name),
    ):
        with pytest.raises(endpoints.sagemaker.exceptions.ConflictException, match="is Running"):
            refused()
    with pytest.raises(endpoints.sagemaker.exceptions.ResourceInUse, match=name):
        create_experiment(endpoints, "shadow-test-rival", endpoint, f"{endpoint}-s")
    for row in range(30):
        ask(endpoints, endpoint, row % 10)
    assert compared(own_server, endpoint, 30)["Different"] == 30

    # The share is changed in place, and what is known stays, also over a kill.
    endpoints.sagemaker.update_inference_experiment(Name=name, ShadowModeConfig=shadow_mode(50))
    wait_for_experiment(endpoints, name, "Running")
    known = picture(own_server, endpoint)
    assert (known["SharePercent"], known["Requests"]) == (50.0, 30)
    poll(lambda: stored(own_server) == 30, "the counts are stored")
    own_server.kill()
    own_server.start()
    endpoints = Endpoints(own_server, bucket, role)
    assert endpoints.sagemaker.describe_inference_experiment(Name=name)["Status"] == "Running"
    assert (picture(own_server, endpoint)["SharePercent"], picture(own_server, endpoint)["Requests"]) == (50.0, 30)
    poll(lambda: len(captured(endpoints, f"stored/{endpoint}/candidate/")) >= 30, "the shadow's answers are stored")
    assert ask(endpoints, endpoint, 1)[0]["score"] == 0.1

    endpoints.sagemaker.stop_inference_experiment(
        Name=name, ModelVariantActions={"production": "Remove", "candidate": "Promote"}
    )
    own_server.kill()
    own_server.start()
    endpoints = Endpoints(own_server, bucket, role)
    ended = wait_for_experiment(endpoints, name, "Completed")
    assert "answers differ" in ended["StatusReason"] and ended["CompletionTime"]
    assert [one["Status"] for one in ended["ModelVariants"]] == ["Deleted", "InService"]
    described = endpoints.wait(endpoint)
    assert [one["VariantName"] for one in described["ProductionVariants"]] == ["candidate"]
    assert "ShadowProductionVariants" not in described
    answer = endpoints.invoke(endpoint, b"[1]")
    assert answer["InvokedProductionVariant"] == "candidate"
    assert json.loads(answer["Body"].read())[0]["score"] == pytest.approx(0.35)
    assert statuses(own_server, name) == ["Created", "Starting", "Running", "Updating", "Running", "Stopping", "Completed"]
    endpoints.sagemaker.delete_inference_experiment(Name=name)


def statuses(server, name):
    """The statuses that an experiment went through, out of the event log."""
    import sqlite3

    with sqlite3.connect(f"file:{server.data_dir}/modelyard.db?mode=ro", uri=True) as database:
        rows = database.execute(
            "SELECT what FROM events WHERE kind = 'inference-experiment' AND name = ? ORDER BY sequence", (name,)
        ).fetchall()
    return [row[0] for row in rows]


def test_an_experiment_ends_by_itself_and_a_broken_shadow_is_taken_back(endpoints):
    import datetime

    endpoint = "shadow-over"
    endpoints.model(f"{endpoint}-p", PRODUCTION)
    endpoints.model(f"{endpoint}-broken", "raise RuntimeError('no luck')")
    endpoints.model(f"{endpoint}-s", CANDIDATE)
    endpoints.sagemaker.create_endpoint_config(
        EndpointConfigName=endpoint, ProductionVariants=[variant("production", f"{endpoint}-p")]
    )
    endpoints.sagemaker.create_endpoint(EndpointName=endpoint, EndpointConfigName=endpoint)
    assert endpoints.wait(endpoint)["EndpointStatus"] == "InService"

    create_experiment(endpoints, "shadow-over-broken", endpoint, f"{endpoint}-broken")
    ended = wait_for_experiment(endpoints, "shadow-over-broken", "Cancelled")
    assert ended["StatusReason"].startswith("The model could not be loaded")
    described = endpoints.wait(endpoint)
    assert described["EndpointConfigName"] == endpoint and "ShadowProductionVariants" not in described
    assert ask(endpoints, endpoint, 1)[0]["score"] == 0.1

    end = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=3)
    create_experiment(endpoints, "shadow-over-soon", endpoint, f"{endpoint}-s", Schedule={"EndTime": end})
    wait_for_experiment(endpoints, "shadow-over-soon", "Completed")
    described = endpoints.wait(endpoint)
    assert described["EndpointConfigName"] == endpoint and "ShadowProductionVariants" not in described

    # Who updates the endpoint ends the experiment, and gets what was asked for.
    create_experiment(endpoints, "shadow-over-other", endpoint, f"{endpoint}-s")
    wait_for_experiment(endpoints, "shadow-over-other", "Running")
    endpoints.sagemaker.update_endpoint(EndpointName=endpoint, EndpointConfigName=endpoint)
    ended = wait_for_experiment(endpoints, "shadow-over-other", "Cancelled")
    assert "by somebody else" in ended["StatusReason"]
    assert endpoints.wait(endpoint)["EndpointConfigName"] == endpoint
    for name in ("shadow-over-broken", "shadow-over-soon", "shadow-over-other"):
        endpoints.sagemaker.delete_inference_experiment(Name=name)
    endpoints.delete(endpoint)
