"""CloudWatch metrics with the real clients: boto3 in each protocol, the `aws` tool, the SDK's training curves, and Prometheus."""

import json
import time
import urllib.error
import urllib.request
import uuid
from datetime import datetime, timedelta, timezone

import botocore.loaders
import botocore.session
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from conftest import BASE_IMAGE, archive, poll
from test_commands import aws

# A few minutes ago, at a full minute.
START = datetime.fromtimestamp(int(time.time()) // 60 * 60 - 1800, timezone.utc)
MINUTE = timedelta(minutes=1)


class OneProtocol(botocore.loaders.Loader):
    """Shows CloudWatch as if it spoke one protocol only, as it does to older and newer clients than this one."""

    def __init__(self, protocol):
        super().__init__(include_default_search_paths=True)
        self.protocol = protocol

    def load_service_model(self, service_name, type_name, api_version=None):
        model = super().load_service_model(service_name, type_name, api_version)
        if type_name == "service-2" and self.protocol:
            metadata = {**model["metadata"], "protocol": self.protocol, "protocols": [self.protocol]}
            return {**model, "metadata": metadata}
        return model


def client_of(server, protocol=None):
    session = botocore.session.Session()
    session.register_component("data_loader", OneProtocol(protocol))
    return session.create_client(
        "cloudwatch",
        endpoint_url=server.endpoint,
        region_name="us-east-1",
        aws_access_key_id=server.connection["access_key_id"],
        aws_secret_access_key=server.connection["secret_access_key"],
        config=Config(retries={"max_attempts": 0}),
    )


@pytest.fixture
def cloudwatch(boto):
    return boto("cloudwatch")


@pytest.fixture
def namespace():
    return f"Tests/{uuid.uuid4()}"


def query(id, namespace, name, stat, **more):
    metric = {"Namespace": namespace, "MetricName": name}
    return {"Id": id, "MetricStat": {"Metric": metric, "Period": 60, "Stat": stat}, **more}


@pytest.mark.parametrize("protocol", [None, "json", "smithy-rpc-v2-cbor", "query"])
def test_each_protocol_puts_and_gets(server, namespace, protocol):
    cloudwatch = client_of(server, protocol)
    dimensions = [{"Name": "host", "Value": "ä b"}]
    cloudwatch.put_metric_data(
        Namespace=namespace,
        MetricData=[
            {"MetricName": "loss", "Timestamp": START, "Value": 0.5, "Dimensions": dimensions},
            {"MetricName": "loss", "Timestamp": START, "Values": [1.5, 2.5], "Counts": [2.0, 1.0], "Dimensions": dimensions},
            {
                "MetricName": "loss",
                "Timestamp": START + MINUTE,
                "StatisticValues": {"SampleCount": 2, "Sum": 8, "Minimum": 3, "Maximum": 5},
                "Dimensions": dimensions,
            },
        ],
    )
    answer = cloudwatch.get_metric_statistics(
        Namespace=namespace,
        MetricName="loss",
        Dimensions=dimensions,
        StartTime=START,
        EndTime=START + 2 * MINUTE,
        Period=60,
        Statistics=["Average", "Maximum", "SampleCount"],
    )
    points = [(point["Timestamp"], point["Average"], point["Maximum"], point["SampleCount"]) for point in answer["Datapoints"]]
    assert points == [(START, 1.5, 2.5, 4.0), (START + MINUTE, 4.0, 5.0, 2.0)]
    metric = {"Namespace": namespace, "MetricName": "loss", "Dimensions": dimensions}
    answer = cloudwatch.get_metric_data(
        MetricDataQueries=[
            {"Id": "m1", "MetricStat": {"Metric": metric, "Period": 60, "Stat": "p50"}},
            {"Id": "e1", "Expression": "m1 * 2", "Label": "twice"},
        ],
        StartTime=START,
        EndTime=START + 2 * MINUTE,
        ScanBy="TimestampAscending",
    )
    assert [(one["Id"], one["Label"], one["Timestamps"], one["Values"]) for one in answer["MetricDataResults"]] == [
        ("m1", "loss", [START], [1.5]),
        ("e1", "twice", [START], [3.0]),
    ]
    assert cloudwatch.list_metrics(Namespace=namespace)["Metrics"] == [metric]
    with pytest.raises(ClientError) as refused:
        cloudwatch.put_metric_data(Namespace=namespace, MetricData=[{"MetricName": "loss", "Value": float("nan")}])
    assert refused.value.response["Error"]["Code"] == "InvalidParameterValue"
    with pytest.raises(cloudwatch.exceptions.InvalidParameterCombinationException, match="mutually exclusive"):
        cloudwatch.put_metric_data(Namespace=namespace, MetricData=[{"MetricName": "loss", "Value": 1, "Values": [1]}])


def test_large_requests_are_compressed_and_lists_have_pages(cloudwatch, namespace):
    data = [
        {"MetricName": f"m{index % 2}", "Value": index, "Dimensions": [{"Name": "index", "Value": f"{index:04}"}]}
        for index in range(1000)
    ]
    cloudwatch.put_metric_data(Namespace=namespace, MetricData=data)
    pages = list(cloudwatch.get_paginator("list_metrics").paginate(Namespace=namespace))
    assert [len(page["Metrics"]) for page in pages] == [500, 500]
    found = cloudwatch.list_metrics(Namespace=namespace, MetricName="m1", Dimensions=[{"Name": "index"}])["Metrics"]
    assert len(found) == 500
    with pytest.raises(ClientError, match="must not have a size greater than 1000"):
        cloudwatch.put_metric_data(Namespace=namespace, MetricData=data + data[:1])


def test_metric_math_and_pages(cloudwatch, namespace):
    data = []
    for minute in range(10):
        data.append({"MetricName": "calls", "Timestamp": START + minute * MINUTE, "Value": 10})
        if minute % 2:
            data.append({"MetricName": "errors", "Timestamp": START + minute * MINUTE, "Value": minute})
    cloudwatch.put_metric_data(Namespace=namespace, MetricData=data)
    queries = [
        query("calls", namespace, "calls", "Sum", ReturnData=False),
        query("errors", namespace, "errors", "Sum", ReturnData=False),
        {"Id": "rate", "Expression": "100 * FILL(errors, 0) / calls", "Label": "rate (max ${MAX})"},
        {"Id": "high", "Expression": "IF(rate > 50, 1, 0)"},
        {"Id": "total", "Expression": "RUNNING_SUM(errors)"},
    ]
    span = {"StartTime": START, "EndTime": START + 10 * MINUTE, "ScanBy": "TimestampAscending"}
    answer = cloudwatch.get_metric_data(MetricDataQueries=queries, **span)
    results = {one["Id"]: one for one in answer["MetricDataResults"]}
    assert results["rate"]["Values"] == [0, 10, 0, 30, 0, 50, 0, 70, 0, 90]
    assert results["rate"]["Label"] == "rate (max 90)"
    assert results["high"]["Values"] == [0, 0, 0, 0, 0, 0, 0, 1, 0, 1]
    assert results["total"]["Values"] == [1, 4, 9, 16, 25]
    pages = cloudwatch.get_paginator("get_metric_data").paginate(
        MetricDataQueries=queries, PaginationConfig={"PageSize": 7}, **span
    )
    values = {}
    for page in pages:
        for one in page["MetricDataResults"]:
            values.setdefault(one["Id"], []).extend(one["Values"])
    assert values == {id: one["Values"] for id, one in results.items()}
    with pytest.raises(ClientError, match="Error in expression 'e1'") as refused:
        cloudwatch.get_metric_data(MetricDataQueries=[{"Id": "e1", "Expression": "NOSUCH(1)"}], **span)
    assert refused.value.response["Error"]["Code"] == "ValidationError"


def test_aws_cloudwatch(server, namespace):
    aws(
        server, "cloudwatch", "put-metric-data", "--namespace", namespace, "--metric-name", "loss", "--value", "0.25",
        "--dimensions", "host=a", "--timestamp", START.isoformat(),
    )
    answer = json.loads(
        aws(
            server, "cloudwatch", "get-metric-statistics", "--namespace", namespace, "--metric-name", "loss", "--dimensions",
            "Name=host,Value=a", "--start-time", START.isoformat(), "--end-time", (START + MINUTE).isoformat(), "--period", "60",
            "--statistics", "Average",
        )
    )
    assert [point["Average"] for point in answer["Datapoints"]] == [0.25]
    queries = [{"Id": "e1", "Expression": "TIME_SERIES(3)", "Period": 60}]
    answer = json.loads(
        aws(
            server, "cloudwatch", "get-metric-data", "--metric-data-queries", json.dumps(queries), "--start-time", START.isoformat(),
            "--end-time", (START + 3 * MINUTE).isoformat(),
        )
    )
    assert answer["MetricDataResults"][0]["Values"] == [3, 3, 3]
    listed = json.loads(aws(server, "cloudwatch", "list-metrics", "--namespace", namespace))
    assert [metric["MetricName"] for metric in listed["Metrics"]] == ["loss"]


def test_metrics_survive_a_kill(own_server):
    cloudwatch = own_server.client("cloudwatch")
    for value in range(20):
        cloudwatch.put_metric_data(Namespace="Kill", MetricData=[{"MetricName": "m", "Timestamp": START, "Value": value}])
    own_server.kill()
    own_server.start()
    answer = own_server.client("cloudwatch").get_metric_statistics(
        Namespace="Kill", MetricName="m", StartTime=START, EndTime=START + MINUTE, Period=60, Statistics=["SampleCount", "Sum"]
    )
    assert [(point["SampleCount"], point["Sum"]) for point in answer["Datapoints"]] == [(20.0, 190.0)]


SCRIPT = """
import time
for epoch in range(4):
    print(f"epoch={epoch} train_loss={1 / (epoch + 1):.4f} accuracy={epoch / 4}", flush=True)
"""


def start_job(server, bucket, role, script):
    """Starts a training job that reports its loss and its accuracy; returns its name."""
    name = f"curves-{uuid.uuid4().hex[:8]}"
    server.client("s3").put_object(Bucket=bucket, Key=f"{name}/sourcedir.tar.gz", Body=archive({"train.py": script}))
    server.client("sagemaker").create_training_job(
        TrainingJobName=name,
        AlgorithmSpecification={
            "TrainingImage": BASE_IMAGE,
            "TrainingInputMode": "File",
            "MetricDefinitions": [
                {"Name": "train:loss", "Regex": "train_loss=([0-9.]+)"},
                {"Name": "train:accuracy", "Regex": "accuracy=([0-9.]+)"},
            ],
        },
        HyperParameters={
            "sagemaker_program": '"train.py"',
            "sagemaker_submit_directory": json.dumps(f"s3://{bucket}/{name}/sourcedir.tar.gz"),
        },
        RoleArn=role,
        OutputDataConfig={"S3OutputPath": f"s3://{bucket}/models"},
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        StoppingCondition={"MaxRuntimeInSeconds": 300},
    )
    return name


def losses(server, name):
    """What the metric of a job has by minute."""
    answer = server.client("cloudwatch").get_metric_statistics(
        Namespace="/aws/sagemaker/TrainingJobs",
        MetricName="train:loss",
        Dimensions=[{"Name": "TrainingJobName", "Value": name}],
        StartTime=START,
        EndTime=datetime.now(timezone.utc) + MINUTE,
        Period=60,
        Statistics=["SampleCount", "Minimum", "Maximum"],
    )
    return answer["Datapoints"]


def count(points):
    return sum(point["SampleCount"] for point in points)


def test_a_training_job_draws_its_curves_and_tells_its_states(server, boto, bucket, role, run_python, tmp_path):
    name = start_job(server, bucket, role, SCRIPT)
    sagemaker = boto("sagemaker")
    sagemaker.get_waiter("training_job_completed_or_stopped").wait(
        TrainingJobName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 120}
    )
    described = sagemaker.describe_training_job(TrainingJobName=name)
    points = poll(lambda: count(losses(server, name)) == 4 and losses(server, name), "all values of the job are metrics")
    assert (min(point["Minimum"] for point in points), max(point["Maximum"] for point in points)) == (0.25, 1.0)
    # Where the SDK looks for a job's curves.
    script = tmp_path / "curves.py"
    script.write_text(
        "import sys\n"
        "from sagemaker.analytics import TrainingJobAnalytics\n"
        "frame = TrainingJobAnalytics(sys.argv[1], metric_names=['train:loss']).dataframe()\n"
        "print(len(frame), set(frame['metric_name']), 0.25 <= frame['value'].min() <= frame['value'].max() <= 1)\n"
    )
    read = run_python(script, name).splitlines()[-1]
    assert read in [f"{len(points)} {{'train:loss'}} True"], read
    cloudwatch, dimensions = boto("cloudwatch"), [{"Name": "TrainingJobName", "Value": name}]
    listed = cloudwatch.list_metrics(Namespace="/aws/sagemaker/TrainingJobs", Dimensions=dimensions)["Metrics"]
    assert [metric["MetricName"] for metric in listed] == ["train:accuracy", "train:loss"]
    lines = server.command("events", "--output", "json").splitlines()
    events = [event for event in map(json.loads, lines) if event["detail"].get("TrainingJobName") == name]
    assert {event["detail-type"] for event in events} == {"SageMaker Training Job State Change"}
    states = [(event["detail"]["TrainingJobStatus"], event["detail"]["SecondaryStatus"]) for event in events]
    assert states[0] == ("InProgress", "Starting") and states[-1] == ("Completed", "Completed")
    assert ("InProgress", "Training") in states
    last = events[-1]["detail"]
    assert last["ModelArtifacts"]["S3ModelArtifacts"] == described["ModelArtifacts"]["S3ModelArtifacts"]
    assert last["TrainingEndTime"] == int(described["TrainingEndTime"].timestamp() * 1000)
    assert name in server.command("events")


SLOW_SCRIPT = """
import time
for epoch in range(8):
    print(f"train_loss={epoch}", flush=True)
    time.sleep(1)
"""


def test_curves_go_on_after_a_kill_of_the_server(own_server):
    role = own_server.client("iam").get_role(RoleName="ModelyardExecutionRole")["Role"]["Arn"]
    own_server.client("s3").create_bucket(Bucket="curves")
    name = start_job(own_server, "curves", role, SLOW_SCRIPT)
    poll(lambda: losses(own_server, name), "the first values are metrics while the job runs")
    own_server.kill()
    own_server.start()
    points = poll(lambda: count(losses(own_server, name)) >= 8 and losses(own_server, name), "all values are metrics")
    assert (min(point["Minimum"] for point in points), max(point["Maximum"] for point in points)) == (0.0, 7.0)


def scrape(server, **headers):
    request = urllib.request.Request(server.endpoint + "/_modelyard/metrics", headers=headers)
    return urllib.request.urlopen(request).read().decode()


def test_prometheus_reads_the_servers_state(server, cloudwatch, namespace):
    cloudwatch.list_metrics(Namespace=namespace)
    text = scrape(server)
    assert 'modelyard_requests_total{service="cloudwatch",operation="ListMetrics",code="OK"}' in text
    assert 'modelyard_store_bytes{store="objects"}' in text
    samples = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
    assert all(float(value) >= 0 for _, value in samples)
    assert len({name for name, _ in samples}) == len(samples)
