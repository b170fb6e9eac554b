"""Batch transform that really transforms, through boto3 and version 2 of the SDK."""

import gzip
import json

import pytest

from conftest import Endpoints, poll, stop_all
from faults import FaultyServer, perhaps_its_last

GROUP = "/aws/sagemaker/TransformJobs"

# Doubles the last cell of each row, or the "x" of each line; a row that says "bad" cannot be taken.
DOUBLE = """
import json, os

def model_fn(model_dir): return None

def transform_fn(model, body, content_type, accept):
    text = body if isinstance(body, str) else body.decode()
    answers = []
    for line in text.splitlines():
        if "bad" in line: raise ValueError("cannot double " + line)
        if content_type == "text/csv":
            answers.append(str(2 * float(line.split(",")[-1])))
        else:
            answers.append(json.dumps({"y": 2 * json.loads(line)["x"]}))
    return "\\n".join(answers) + "\\n", accept
"""

ENVIRONMENT = """
import json, os
def model_fn(model_dir): return None
def transform_fn(model, body, content_type, accept):
    names = [name for name in os.environ if name.startswith("SAGEMAKER_") or name in ("OWN", "OTHER")]
    return json.dumps({"size": len(body), "type": content_type, **{name: os.environ[name] for name in names}}), accept
"""


class Transforms:
    """Transform jobs from a few lines of Python."""

    def __init__(self, server, bucket, role):
        self.server, self.bucket, self.role = server, bucket, role
        self.sagemaker, self.s3, self.logs = (server.client(name) for name in ("sagemaker", "s3", "logs"))
        self.endpoints = Endpoints(server, bucket, role)

    def put(self, key, body):
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=body)
        return f"s3://{self.bucket}/{key}"

    def get(self, name, key):
        return self.s3.get_object(Bucket=self.bucket, Key=f"transforms/{name}/out/{key}")["Body"].read().decode()

    def keys(self, name):
        prefix = f"transforms/{name}/out/"
        found = self.s3.list_objects_v2(Bucket=self.bucket, Prefix=prefix)
        return [one["Key"].removeprefix(prefix) for one in found.get("Contents", [])]

    def start(self, name, model, objects=None, content="text/csv", input=None, output=None, count=1, **request):
        for key, body in (objects or {}).items():
            self.put(f"transforms/{name}/in/{key}", body)
        source = {"S3DataType": "S3Prefix", "S3Uri": f"s3://{self.bucket}/transforms/{name}/in"}
        self.sagemaker.create_transform_job(
            TransformJobName=name,
            ModelName=model,
            TransformInput={"DataSource": {"S3DataSource": source}, "ContentType": content, "SplitType": "Line", **(input or {})},
            TransformOutput={"S3OutputPath": f"s3://{self.bucket}/transforms/{name}/out", "Accept": content, **(output or {})},
            TransformResources={"InstanceType": "ml.m5.large", "InstanceCount": count},
            **request,
        )

    def describe(self, name):
        return self.sagemaker.describe_transform_job(TransformJobName=name)

    def wait(self, name):
        def ended():
            job = self.describe(name)
            return job if job["TransformJobStatus"] in ("Completed", "Failed", "Stopped") else None

        return poll(ended, f"{name} has ended")

    def run(self, name, model, *arguments, **request):
        self.start(name, model, *arguments, **request)
        job = self.wait(name)
        assert job["TransformJobStatus"] == "Completed", job.get("FailureReason")
        return job


@pytest.fixture(scope="module")
def transforms(server, bucket, role):
    transforms = Transforms(server, bucket, role)
    transforms.endpoints.model("double", DOUBLE)
    return transforms


def test_rows_are_transformed_in_order_whatever_the_strategy(transforms):
    rows = "".join(f"{number},{number}\n" for number in range(3000))
    expected = "".join(f"{2.0 * number}\n" for number in range(3000))
    objects = {"a.csv": rows, "deep/b.csv": "7\n8", "empty.csv": ""}
    job = transforms.run("multi", "double", objects, BatchStrategy="MultiRecord", output={"AssembleWith": "Line"})
    assert job["TransformEndTime"] >= job["TransformStartTime"] >= job["CreationTime"]
    assert job["DataProcessing"] == {"InputFilter": "$", "OutputFilter": "$", "JoinSource": "None"}
    assert sorted(transforms.keys("multi")) == ["a.csv.out", "deep/b.csv.out", "empty.csv.out"]
    assert transforms.get("multi", "a.csv.out") == expected
    assert transforms.get("multi", "deep/b.csv.out") == "14.0\n16.0\n"
    transforms.run(
        "single", "double", objects, BatchStrategy="SingleRecord", MaxConcurrentTransforms=4, MaxPayloadInMB=1, count=2
    )
    assert transforms.get("single", "a.csv.out") == expected
    arn = transforms.describe("single")["TransformJobArn"]
    transforms.sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": "team", "Value": "blue"}])
    assert transforms.sagemaker.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "team", "Value": "blue"}]
    listed = transforms.sagemaker.list_transform_jobs(NameContains="single", StatusEquals="Completed")
    assert [one["TransformJobName"] for one in listed["TransformJobSummaries"]] == ["single"]
    streams = transforms.logs.describe_log_streams(logGroupName=GROUP, logStreamNamePrefix="single/")["logStreams"]
    assert len([one for one in streams if one["logStreamName"].endswith("/data-log")]) == 1 and len(streams) == 3


def test_answers_are_joined_with_filtered_inputs(transforms):
    data = {"InputFilter": "$[1:]", "JoinSource": "Input", "OutputFilter": "$[0,-1]"}
    transforms.run("join-csv", "double", {"a.csv": 'one,"x, y",1\ntwo,z,0.50\n'}, DataProcessing=data)
    assert transforms.get("join-csv", "a.csv.out") == "one,2.0\ntwo,1.0\n"
    lines = '{"id": 1, "features": {"x": 3}}\n{"id": 2, "features": {"x": 4}}\n'
    data = {"InputFilter": "$.features", "JoinSource": "Input", "OutputFilter": "$['id','SageMakerOutput']"}
    content = "application/jsonlines"
    transforms.run("join-json", "double", {"a.jsonl": lines}, content, DataProcessing=data, BatchStrategy="SingleRecord")
    stored = [json.loads(line) for line in transforms.get("join-json", "a.jsonl.out").splitlines()]
    assert stored == [{"id": 1, "SageMakerOutput": {"y": 6}}, {"id": 2, "SageMakerOutput": {"y": 8}}]


def test_gzip_manifest_and_data_capture(transforms):
    packed = gzip.compress(b"".join(b"%d\n" % number for number in range(1000)))
    transforms.put("transforms/packed/in/part/a.gz", packed)
    prefix = f"s3://{transforms.bucket}/transforms/packed/in/"
    uri = transforms.put("transforms/packed/manifest", json.dumps([{"prefix": prefix}, "part/a.gz"]))
    source = {"S3DataSource": {"S3DataType": "ManifestFile", "S3Uri": uri}}
    destination = f"s3://{transforms.bucket}/transforms/packed/captured"
    transforms.run(
        "packed",
        "double",
        input={"DataSource": source, "CompressionType": "Gzip"},
        DataCaptureConfig={"DestinationS3Uri": destination, "GenerateInferenceId": True},
    )
    rows = [row.split(",") for row in transforms.get("packed", "part/a.gz.out").splitlines()]
    assert [row[0] for row in rows] == [str(2.0 * number) for number in range(1000)]
    assert len({row[1] for row in rows}) == 1000 and all(row[2].endswith("Z") for row in rows)
    captured = transforms.s3.list_objects_v2(Bucket=transforms.bucket, Prefix="transforms/packed/captured/")["Contents"]
    lists = {
        one["Key"].split("/")[3]: json.load(transforms.s3.get_object(Bucket=transforms.bucket, Key=one["Key"])["Body"])
        for one in captured
    }
    assert lists["input"] == [{"prefix": prefix}, "part/a.gz"]
    out = f"s3://{transforms.bucket}/transforms/packed/out/"
    assert lists["output"] == [{"prefix": out}, "part/a.gz.out"]


def test_the_container_knows_that_it_works_in_a_batch(transforms):
    transforms.endpoints.model("batch-environment", ENVIRONMENT, Environment={"OWN": "model", "OTHER": "model"})
    transforms.run(
        "variables",
        "batch-environment",
        {"a": b"12345"},
        "application/x-own",
        input={"SplitType": "None"},
        Environment={"OWN": "job"},
        MaxPayloadInMB=0,
    )
    told = json.loads(transforms.get("variables", "a.out"))
    assert (told["size"], told["type"], told["OWN"], told["OTHER"]) == (5, "application/x-own", "job", "model")
    assert told["SAGEMAKER_BATCH"] == "true" and told["SAGEMAKER_MAX_PAYLOAD_IN_MB"] == "0"
    assert told["SAGEMAKER_BATCH_STRATEGY"] == "MULTI_RECORD" and told["SAGEMAKER_MAX_CONCURRENT_TRANSFORMS"] == "1"


def test_a_record_that_fails_is_named_and_the_other_objects_are_stored(transforms, server):
    objects = {"a.csv": "1\n2\nbad row\n", "b.csv": "4\n"}
    retries = {"InvocationsMaxRetries": 0}
    transforms.start("record-failing", "double", objects, BatchStrategy="SingleRecord", ModelClientConfig=retries)
    job = transforms.wait("record-failing")
    reason = job["FailureReason"]
    assert job["TransformJobStatus"] == "Failed"
    assert reason.startswith("AlgorithmError: See job logs for more information.")
    assert "a.csv, record 3" in reason and "ValueError: cannot double bad row" in reason and "Traceback" in reason
    assert transforms.keys("record-failing") == ["b.csv.out"]
    why = server.command("jobs", "why", "record-failing")
    assert "record 3" in why and "model's script" in why
    server.wait_for_log("record-failing", "cannot double bad row")
    assert "record-failing" in server.command("jobs", "list", "--status", "Failed")
    with pytest.raises(transforms.sagemaker.exceptions.ClientError, match="already exists"):
        transforms.start("record-failing", "double")


def test_a_model_that_cannot_load_fails_the_job(transforms):
    transforms.endpoints.model("unloadable", "def model_fn(model_dir): raise RuntimeError('weights are missing')\n")
    transforms.start("unloadable", "unloadable", {"a.csv": "1\n"})
    job = transforms.wait("unloadable")
    assert job["TransformJobStatus"] == "Failed"
    assert "failed to respond to ping" in job["FailureReason"] and "weights are missing" in job["FailureReason"]


SLOW = """
import os, time
def model_fn(model_dir): return None
def transform_fn(model, body, content_type, accept):
    time.sleep(0.05)
    return "".join(line + ",done\\n" for line in body.splitlines()), accept
"""


def test_a_job_is_stopped(transforms, server):
    transforms.endpoints.model("slow", SLOW)
    rows = "".join(f"{number}\n" for number in range(10_000))
    transforms.start("stopped", "slow", {"a.csv": rows}, BatchStrategy="SingleRecord")
    poll(lambda: "TransformStartTime" in transforms.describe("stopped"), "it runs")
    poll(lambda: "bytes" in server.command("jobs", "why", "stopped"), "its progress is told")
    transforms.sagemaker.stop_transform_job(TransformJobName="stopped")
    assert transforms.wait("stopped")["TransformJobStatus"] == "Stopped"
    assert transforms.keys("stopped") == []
    with pytest.raises(transforms.sagemaker.exceptions.ClientError, match="in status Stopped"):
        transforms.sagemaker.stop_transform_job(TransformJobName="stopped")


def test_killed_servers_leave_each_record_in_the_output_once(own_server):
    s3 = own_server.client("s3")
    s3.create_bucket(Bucket="killed")
    role = own_server.client("iam").get_role(RoleName="ModelyardExecutionRole")["Role"]["Arn"]
    transforms = Transforms(own_server, "killed", role)
    transforms.endpoints.model("slow", SLOW)
    rows = [f"{number}" for number in range(120)]
    objects = {"a.csv": "\n".join(rows), "b.csv": "\n".join(reversed(rows))}
    transforms.start("killed", "slow", objects, BatchStrategy="SingleRecord")
    spools = own_server.data_dir / "transforms"
    for records in (20, 60):
        # The journal says how far the output is good.
        poll(lambda: any(_committed(path) >= records for path in spools.glob("*/0.journal")), f"{records} records are durable")
        own_server.kill()
        own_server.start()
    job = Transforms(own_server, "killed", role).wait("killed")
    assert job["TransformJobStatus"] == "Completed", job.get("FailureReason")
    assert transforms.get("killed", "a.csv.out") == "".join(f"{row},done\n" for row in rows)
    assert transforms.get("killed", "b.csv.out") == "".join(f"{row},done\n" for row in reversed(rows))
    poll(lambda: not list(spools.iterdir()), "its folder is gone")


def test_each_durable_step_may_be_the_last_of_a_server(tmp_path):
    server = FaultyServer(tmp_path).start()
    try:
        server.client("s3").create_bucket(Bucket="points")
        role = server.client("iam").get_role(RoleName="ModelyardExecutionRole")["Role"]["Arn"]
        transforms = Transforms(server, "points", role)
        transforms.endpoints.model("double", DOUBLE)
        rows = "".join(f"{number}\n" for number in range(50))
        expected = "".join(f"{2.0 * number}\n" for number in range(50))
        points = ["transform-list", "transform-write", "transform-commit", "transform-stored", "transform-outcome"]
        for name in points:
            server.arm(name)
            with perhaps_its_last(server):
                transforms.start(name, "double", {"a.csv": rows, "b.csv": rows})
            poll(lambda: server.was_hit(name), f"a job passes {name}")
            poll(server.has_died, f"{name} ends the server")
            server.restart()
            # Else it would pass the next point before there is a job for it.
            transforms.wait(name)
        # The disk has room again when the step is repeated.
        server.arm("transform-write", "short")
        transforms.start("short", "double", {"a.csv": rows, "b.csv": rows})
        for name in [*points, "short"]:
            job = transforms.wait(name)
            assert job["TransformJobStatus"] == "Completed", job.get("FailureReason")
            assert [transforms.get(name, key) for key in ("a.csv.out", "b.csv.out")] == [expected] * 2, name
    finally:
        stop_all(server)


def _committed(journal):
    try:
        lines = journal.read_text().split("\n")[:-1]
    except FileNotFoundError:
        return 0
    return json.loads(lines[-1])["records"] if lines else 0


SDK = """
import sagemaker
from sagemaker.sklearn.estimator import SKLearn
import numpy, sys

session = sagemaker.Session()
role = "ModelyardExecutionRole"
role = sagemaker.session.Session().boto_session.client("iam").get_role(RoleName=role)["Role"]["Arn"]
bucket = session.default_bucket()
estimator = SKLearn("train.py", framework_version="1.2-1", py_version="py3", instance_type="ml.m5.large", role=role, source_dir="src")
estimator.fit(wait=True, logs=False)
rows = [(number, number % 7, number % 3) for number in range(200)]
with open("rows.csv", "w") as file:
    file.writelines(",".join(map(str, row)) + "\\n" for row in rows)
uri = session.upload_data("rows.csv", key_prefix="sdk-transform/in")
transformer = estimator.transformer(
    1, "ml.m5.large", strategy="MultiRecord", assemble_with="Line", accept="text/csv", output_path=f"s3://{bucket}/sdk-transform/out"
)
transformer.transform(
    uri, content_type="text/csv", split_type="Line", input_filter="$[1:]", join_source="Input", output_filter="$[0,-1]", wait=True, logs=True
)
text = session.read_s3_file(bucket, "sdk-transform/out/rows.csv.out")
stored = [line.split(",") for line in text.splitlines()]
assert [int(row[0]) for row in stored] == list(range(200))
assert all(abs(float(row[1]) - (2 * (int(row[0]) % 7) + int(row[0]) % 3)) < 0.001 for row in stored), stored[:3]
print("all is well")
"""

TRAIN = """
import os
import joblib, numpy
from sklearn.linear_model import LinearRegression

def model_fn(model_dir):
    return joblib.load(os.path.join(model_dir, "model.joblib"))

if __name__ == "__main__":
    rows = numpy.random.default_rng(1).random((50, 2))
    joblib.dump(LinearRegression().fit(rows, rows @ [2, 1]), os.environ["SM_MODEL_DIR"] + "/model.joblib")
"""


def test_a_trained_model_transforms_through_the_sdk(run_python, bucket, tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "train.py").write_text(TRAIN)
    script = tmp_path / "sdk.py"
    script.write_text(SDK)
    assert "all is well" in run_python(script)
