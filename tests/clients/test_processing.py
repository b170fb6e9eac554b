"""Processing jobs that really run, through boto3 and version 2 of the SDK."""

import json
import os
import subprocess
import textwrap

import pytest

from conftest import BASE_IMAGE, BINARY, poll, wait_for_line

GROUP = "/aws/sagemaker/ProcessingJobs"


class Processing:
    """Processing jobs from a few lines of Python."""

    def __init__(self, server, bucket, role):
        self.server, self.bucket, self.role = server, bucket, role
        self.sagemaker, self.s3, self.logs = (server.client(name) for name in ("sagemaker", "s3", "logs"))

    def put(self, key, body):
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=body)
        return f"s3://{self.bucket}/{key}"

    def get(self, key):
        return self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()

    def keys(self, prefix):
        found = self.s3.list_objects_v2(Bucket=self.bucket, Prefix=prefix)
        return [one["Key"].removeprefix(prefix) for one in found.get("Contents", [])]

    def input(self, name, uri, path=None, **more):
        path = path or f"/opt/ml/processing/input/{name}"
        source = {"S3Uri": uri, "LocalPath": path, "S3DataType": "S3Prefix", "S3InputMode": "File", **more}
        return {"InputName": name, "S3Input": source}

    def output(self, name, uri, mode="EndOfJob", path=None):
        path = path or f"/opt/ml/processing/{name}"
        return {"OutputName": name, "S3Output": {"S3Uri": uri, "LocalPath": path, "S3UploadMode": mode}}

    def start(self, name, script, inputs=(), outputs=(), count=1, seconds=300, arguments=(), **request):
        uri = self.put(f"processing/{name}/code/script.py", textwrap.dedent(script).encode())
        application = {
            "ImageUri": BASE_IMAGE,
            "ContainerEntrypoint": ["python3", "/opt/ml/processing/input/code/script.py"],
        }
        if arguments:
            application["ContainerArguments"] = list(arguments)
        cluster = {"InstanceType": "ml.t3.medium", "InstanceCount": count, "VolumeSizeInGB": 10}
        self.sagemaker.create_processing_job(
            ProcessingJobName=name,
            AppSpecification=application,
            ProcessingInputs=[self.input("code", uri), *inputs],
            ProcessingOutputConfig={"Outputs": list(outputs), **request.pop("output_config", {})},
            ProcessingResources={"ClusterConfig": cluster},
            StoppingCondition={"MaxRuntimeInSeconds": seconds},
            RoleArn=self.role,
            **request,
        )

    def describe(self, name):
        return self.sagemaker.describe_processing_job(ProcessingJobName=name)

    def wait(self, name):
        def ended():
            job = self.describe(name)
            return job if job["ProcessingJobStatus"] in ("Completed", "Failed", "Stopped") else None

        return poll(ended, f"{name} has ended")

    def run(self, name, script, **request):
        self.start(name, script, **request)
        return self.wait(name)

    def lines(self, name):
        try:
            streams = self.logs.describe_log_streams(logGroupName=GROUP, logStreamNamePrefix=name + "/")["logStreams"]
        except self.logs.exceptions.ResourceNotFoundException:
            return []
        messages = []
        for stream in streams:
            page = self.logs.get_log_events(logGroupName=GROUP, logStreamName=stream["logStreamName"], startFromHead=True)
            messages += [event["message"] for event in page["events"]]
        return messages

    def wait_for_line(self, name, text):
        return wait_for_line(self, name, text)


@pytest.fixture
def processing(server, bucket, role):
    return Processing(server, bucket, role)


def test_the_container_contract(processing):
    base = "processing-contract"
    data = processing.put(f"{base}/data/deep/a.csv", b"1,2\n").removesuffix("/deep/a.csv")
    output = processing.output("train", f"s3://{processing.bucket}/{base}/out")
    processing.sagemaker.create_experiment(ExperimentName="e")
    processing.sagemaker.create_trial(TrialName="t", ExperimentName="e")
    job = processing.run(
        "contract",
        """
        import json, os, sys
        print("arguments", sys.argv[1:])
        print("input", open("/opt/ml/processing/input/data/deep/a.csv").read().strip())
        print("resources", json.dumps(json.load(open("/opt/ml/config/resourceconfig.json"))))
        print("configuration", json.dumps(json.load(open("/opt/ml/config/processingjobconfig.json")), sort_keys=True))
        print("own", os.environ["OWN"], os.environ["PROCESSING_JOB_ARN"], "TRAINING_JOB_NAME" in os.environ)
        open("/opt/ml/processing/train/b.csv", "w").write("3,4\\n")
        os.makedirs("/opt/ml/processing/train/deep")
        open("/opt/ml/processing/train/deep/c.csv", "w").write("5,6\\n")
        open("/opt/ml/output/message", "w").write("two files")
        """,
        inputs=[processing.input("data", data)],
        outputs=[output],
        arguments=["--ratio", "0.2"],
        Environment={"OWN": "value"},
        ExperimentConfig={"ExperimentName": "e", "TrialName": "t"},
        Tags=[{"Key": "team", "Value": "a"}],
    )
    assert job["ProcessingJobStatus"] == "Completed", job.get("FailureReason")
    assert job["ExitMessage"] == "two files"
    assert job["ExperimentConfig"] == {"ExperimentName": "e", "TrialName": "t"}
    lines = processing.lines("contract")
    for line in (
        "arguments ['--ratio', '0.2']",
        "input 1,2",
        'resources {"current_host": "algo-1", "hosts": ["algo-1"]}',
        f"own value {job['ProcessingJobArn']} False",
    ):
        assert line in lines, lines
    [told] = [line for line in lines if line.startswith("configuration ")]
    configuration = json.loads(told.removeprefix("configuration "))
    assert configuration["ProcessingJobArn"] == job["ProcessingJobArn"]
    assert configuration["ProcessingInputs"][1]["S3Input"]["S3DownloadMode"] == "StartOfJob"
    assert configuration["ProcessingOutputConfig"] == {"Outputs": [output], "KmsKeyId": None}
    assert sorted(processing.keys(f"{base}/out/")) == ["b.csv", "deep/c.csv"]
    assert processing.get(f"{base}/out/b.csv") == b"3,4\n"
    tags = processing.sagemaker.list_tags(ResourceArn=job["ProcessingJobArn"])["Tags"]
    assert tags == [{"Key": "team", "Value": "a"}]
    waiter = processing.sagemaker.get_waiter("processing_job_completed_or_stopped")
    waiter.wait(ProcessingJobName="contract", WaiterConfig={"Delay": 1, "MaxAttempts": 1})
    summaries = processing.sagemaker.list_processing_jobs(NameContains="contract")["ProcessingJobSummaries"]
    assert [(one["ProcessingJobName"], one["ExitMessage"]) for one in summaries] == [("contract", "two files")]
    assert job["CreationTime"] <= job["ProcessingStartTime"] <= job["ProcessingEndTime"]


def test_inputs_of_every_shape(processing):
    base = "processing-inputs"
    for name, text in (("a.csv", "1"), ("b.csv", "2"), ("c.csv", "3")):
        uri = processing.put(f"{base}/data/{name}", text.encode())
    prefix = uri.rpartition("/")[0]
    manifest = json.dumps([{"prefix": prefix + "/"}, "a.csv", "c.csv"]).encode()
    job = processing.run(
        "inputs",
        """
        import os
        for folder in ("outer", "outer/inner", "listed", "one"):
            print(folder, sorted(os.listdir("/opt/ml/processing/" + folder)))
        print("stream", open("/opt/ml/processing/streams/data_0").read())
        """,
        inputs=[
            processing.input("outer", prefix, path="/opt/ml/processing/outer/"),
            processing.input("inner", prefix + "/a", path="/opt/ml/processing/outer/inner"),
            processing.input(
                "listed", processing.put(f"{base}/manifest", manifest), "/opt/ml/processing/listed", S3DataType="ManifestFile"
            ),
            processing.input("one", uri, path="/opt/ml/processing/one"),
            processing.input("streamed", prefix, path="/opt/ml/processing/streams/data", S3InputMode="Pipe"),
        ],
    )
    assert job["ProcessingJobStatus"] == "Completed", job.get("FailureReason")
    lines = processing.lines("inputs")
    for line in (
        "outer ['a.csv', 'b.csv', 'c.csv', 'inner']",
        "outer/inner ['a.csv']",
        "listed ['a.csv', 'c.csv']",
        "one ['c.csv']",
        "stream 123",
    ):
        assert line in lines, lines


def test_a_large_input_is_shown_where_it_lies(processing):
    base = "processing-large"
    uri = processing.put(f"{base}/data/zeros", bytes(65 << 20))
    job = processing.run(
        "large-input",
        """
        import os
        for folder in ("data", "shared"):
            path = f"/opt/ml/processing/{folder}/zeros"
            print(folder, os.path.getsize(path) >> 20, os.access(path, os.W_OK))
        open("/opt/ml/processing/shared/out/file", "w").write("nested")
        open("/results/file", "w").write("elsewhere")
        """,
        inputs=[
            processing.input("data", uri, path="/opt/ml/processing/data"),
            processing.input("shared", uri, path="/opt/ml/processing/shared"),
        ],
        outputs=[
            processing.output("nested", f"s3://{processing.bucket}/{base}/nested", path="/opt/ml/processing/shared/out"),
            processing.output("elsewhere", f"s3://{processing.bucket}/{base}/elsewhere", path="/results"),
        ],
    )
    assert job["ProcessingJobStatus"] == "Completed", job.get("FailureReason")
    assert {"data 65 False", "shared 65 True"} <= set(processing.lines("large-input"))
    assert processing.get(f"{base}/nested/file") == b"nested" and processing.get(f"{base}/elsewhere/file") == b"elsewhere"


def test_hosts_share_the_objects(processing):
    base = "processing-hosts"
    for number in range(5):
        uri = processing.put(f"{base}/data/{number}", str(number).encode())
    prefix = uri.rpartition("/")[0]
    job = processing.run(
        "hosts",
        """
        import json, os, socket
        resources = json.load(open("/opt/ml/config/resourceconfig.json"))
        own = resources["current_host"]
        print("addresses", len({socket.gethostbyname(host) for host in resources["hosts"]}))
        names = sorted(os.listdir("/opt/ml/processing/input/data"))
        open(f"/opt/ml/processing/out/{own}", "w").write(" ".join(names))
        open("/opt/ml/output/message", "w").write(own + ";")
        """,
        count=2,
        inputs=[processing.input("data", prefix, S3DataDistributionType="ShardedByS3Key")],
        outputs=[processing.output("out", f"s3://{processing.bucket}/{base}/out/")],
    )
    assert job["ProcessingJobStatus"] == "Completed", job.get("FailureReason")
    assert job["ExitMessage"] == "algo-1;algo-2;"
    assert processing.get(f"{base}/out/algo-1") == b"0 2 4" and processing.get(f"{base}/out/algo-2") == b"1 3"
    assert processing.lines("hosts").count("addresses 2") == 2


def test_a_failure_says_why(processing, server):
    output = processing.output("out", f"s3://{processing.bucket}/processing-failing")
    job = processing.run(
        "failing-processing",
        """
        open("/opt/ml/output/message", "w").write("the second column is empty")
        open("/opt/ml/processing/out/half", "w").write("half")
        raise ValueError("the data is bad")
        """,
        outputs=[output],
    )
    assert job["ProcessingJobStatus"] == "Failed"
    assert "ValueError: the data is bad" in job["FailureReason"] and len(job["FailureReason"]) <= 1024
    assert job["ExitMessage"] == "the second column is empty"
    assert processing.keys("processing-failing") == [], "outputs of a failed job are not stored"
    why = server.command("jobs", "why", "failing-processing")
    assert "ValueError" in why and GROUP in why
    shown = server.command("jobs", "show", "failing-processing")
    assert "the second column is empty" in shown and "Traceback (most recent call last)" in shown
    assert "ValueError: the data is bad" in server.command("logs", "failing-processing")
    assert "failing-processing" in server.command("jobs", "list", "--name", "failing-processing")


def test_a_message_must_be_text(processing):
    job = processing.run("not-text", "open('/opt/ml/output/message', 'wb').write(b'caf\\xe9')")
    assert job["ProcessingJobStatus"] == "Failed"
    assert job["FailureReason"].startswith("ClientError: algo-1:") and "not UTF-8" in job["FailureReason"]


def test_missing_input_and_bucket_fail_the_job(processing):
    uri = f"s3://{processing.bucket}/nothing/here"
    job = processing.run("missing-processing-input", "print('never')", inputs=[processing.input("data", uri)])
    assert job["ProcessingJobStatus"] == "Failed" and uri in job["FailureReason"]
    job = processing.run("missing-bucket", "print('never')", outputs=[processing.output("out", "s3://no-such-bucket/a")])
    assert job["ProcessingJobStatus"] == "Failed" and "no-such-bucket" in job["FailureReason"]
    assert processing.lines("missing-bucket") == []


STOPPABLE = """
    import signal, sys, threading
    def stop(*_):
        open("/opt/ml/processing/out/saved", "w").write("in time")
        sys.exit(0)
    signal.signal(signal.SIGTERM, stop)
    open("/opt/ml/processing/out/first", "w").write("before")
    print("ready", flush=True)
    threading.Event().wait()
"""


def test_stop_gives_time_to_save(processing, server):
    outputs = [processing.output("out", f"s3://{processing.bucket}/processing-stopped")]
    processing.start("stopped-processing", STOPPABLE, outputs=outputs)
    processing.wait_for_line("stopped-processing", "ready")
    command = [BINARY, "jobs", "shell", "stopped-processing", "--data-dir", server.data_dir, "--", "cat"]
    done = subprocess.run([*command, "/opt/ml/config/resourceconfig.json"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and json.loads(done.stdout)["current_host"] == "algo-1", done.stderr
    assert "Its program runs" in server.command("jobs", "why", "stopped-processing")
    assert server.command("jobs", "stop", "stopped-processing")
    job = processing.wait("stopped-processing")
    assert job["ProcessingJobStatus"] == "Stopped" and "FailureReason" not in job
    assert processing.get("processing-stopped/saved") == b"in time"
    name = {"ProcessingJobName": "stopped-processing"}
    with pytest.raises(processing.sagemaker.exceptions.ClientError, match="processing job is in status Stopped"):
        processing.sagemaker.stop_processing_job(**name)
    processing.sagemaker.delete_processing_job(**name)
    with pytest.raises(processing.sagemaker.exceptions.ClientError, match="Could not find requested job"):
        processing.describe("stopped-processing")


def test_continuous_outputs_come_while_the_job_runs(processing):
    outputs = [
        processing.output("out", f"s3://{processing.bucket}/processing-continuous", "Continuous"),
        processing.output("late", f"s3://{processing.bucket}/processing-late"),
    ]
    processing.start("continuous", STOPPABLE, outputs=outputs)
    poll(lambda: processing.keys("processing-continuous/") == ["first"], "the first file is stored")
    assert processing.keys("processing-late") == []
    processing.sagemaker.stop_processing_job(ProcessingJobName="continuous")
    assert processing.wait("continuous")["ProcessingJobStatus"] == "Stopped"
    assert processing.get("processing-continuous/saved") == b"in time"


def test_outputs_replace_what_an_earlier_job_left(processing):
    """Also where size and time of a file are the same."""
    for mode in ("EndOfJob", "Continuous"):
        prefix = f"processing-again-{mode.lower()}"
        for text in ("first", "again"):
            job = processing.run(
                f"{prefix}-{text}",
                f"""
                import os
                path = "/opt/ml/processing/out/file"
                open(path, "w").write("{text}")
                os.utime(path, (1, 1))
                """,
                outputs=[processing.output("out", f"s3://{processing.bucket}/{prefix}", mode)],
            )
            assert job["ProcessingJobStatus"] == "Completed", job.get("FailureReason")
        assert processing.get(f"{prefix}/file") == b"again"


def test_time_limit_and_isolation(processing):
    job = processing.run(
        "isolated",
        """
        import os, threading, urllib.request
        try:
            urllib.request.urlopen(os.environ["AWS_ENDPOINT_URL"] + "/_modelyard/health", timeout=5)
            print("reached", flush=True)
        except OSError:
            print("nothing is reached", flush=True)
        threading.Event().wait()
        """,
        seconds=3,
        NetworkConfig={"EnableNetworkIsolation": True},
    )
    assert job["ProcessingJobStatus"] == "Stopped"
    assert processing.lines("isolated")[-1] == "nothing is reached"


def test_isolated_hosts_reach_each_other_alone(processing):
    job = processing.run(
        "isolated-processing-hosts",
        """
        import json, os, socket, time, urllib.request
        own = json.load(open("/opt/ml/config/resourceconfig.json"))["current_host"]
        if own == "algo-1":
            with socket.create_server(("algo-1", 7777)) as listening:
                connection, _ = listening.accept()
                print(connection.recv(100).decode(), flush=True)
        else:
            while True:
                try:
                    with socket.create_connection(("algo-1", 7777)) as connection:
                        connection.sendall(b"hello from algo-2")
                    break
                except OSError:
                    time.sleep(0.05)
        try:
            urllib.request.urlopen(os.environ["AWS_ENDPOINT_URL"] + "/_modelyard/health", timeout=5)
            print("reached", flush=True)
        except OSError:
            print("nothing is reached", flush=True)
        """,
        count=2,
        NetworkConfig={"EnableNetworkIsolation": True},
    )
    assert job["ProcessingJobStatus"] == "Completed", job.get("FailureReason")
    lines = processing.lines("isolated-processing-hosts")
    assert lines.count("hello from algo-2") == 1 and lines.count("nothing is reached") == 2, lines


def test_outputs_are_encrypted_with_their_key(processing, server):
    key = server.client("kms").create_key()["KeyMetadata"]["Arn"]
    outputs = [processing.output("out", f"s3://{processing.bucket}/processing-sealed")]
    job = processing.run(
        "sealed",
        "open('/opt/ml/processing/out/file', 'w').write('sealed')",
        outputs=outputs,
        output_config={"KmsKeyId": key},
    )
    assert job["ProcessingJobStatus"] == "Completed", job.get("FailureReason")
    stored = processing.s3.get_object(Bucket=processing.bucket, Key="processing-sealed/file")
    assert (stored["Body"].read(), stored["SSEKMSKeyId"]) == (b"sealed", key)


def test_usage_is_put_as_metrics(processing, server):
    job = processing.run("measured", "sum(range(30_000_000)); import time; time.sleep(2.5)")
    assert job["ProcessingJobStatus"] == "Completed", job.get("FailureReason")
    found = server.client("cloudwatch").list_metrics(
        Namespace=GROUP, Dimensions=[{"Name": "Host", "Value": "measured/algo-1"}]
    )["Metrics"]
    assert "CPUUtilization" in [metric["MetricName"] for metric in found]
    assert "CPU" in server.command("jobs", "show", "measured")


@pytest.fixture
def own_processing(own_server):
    bucket = "sagemaker-us-east-1-" + own_server.connection["account"]
    own_server.client("s3").create_bucket(Bucket=bucket)
    role = own_server.client("iam").get_role(RoleName="ModelyardExecutionRole")["Role"]["Arn"]
    return Processing(own_server, bucket, role)


def test_a_job_outlives_its_server(own_server, own_processing):
    processing = own_processing
    processing.start(
        "survivor",
        """
        import os, time
        print("ready", flush=True)
        while not os.path.exists("/opt/ml/processing/out/go"):
            time.sleep(0.05)
        open("/opt/ml/processing/out/runs", "a").write("one")
        """,
        outputs=[processing.output("out", f"s3://{processing.bucket}/survivor")],
    )
    processing.wait_for_line("survivor", "ready")
    own_server.kill()
    [opt_ml] = (own_server.data_dir / "jobs").glob("*/opt-ml")
    (opt_ml / "processing/out/go").write_text("")
    own_server.start()
    job = processing.wait("survivor")
    assert job["ProcessingJobStatus"] == "Completed", job.get("FailureReason")
    assert processing.get("survivor/runs") == b"one"
    assert list((own_server.data_dir / "jobs").iterdir()) == []


SDK = """
    import sys
    import time
    import sagemaker
    from sagemaker.processing import FrameworkProcessor, ProcessingInput, ProcessingOutput, ScriptProcessor
    from sagemaker.sklearn import SKLearn, SKLearnProcessor
    role, data = sys.argv[1:]
    common = dict(role=role, instance_count=1, instance_type="ml.t3.medium")
    inputs = [ProcessingInput(source=data, destination="/opt/ml/processing/input")]
    outputs = [ProcessingOutput(output_name=name, source="/opt/ml/processing/" + name) for name in ("train", "test")]

    def finish(processor):
        # The SDK looks every half minute only.
        job = processor.latest_job
        while job.describe()["ProcessingJobStatus"] in ("InProgress", "Stopping"):
            time.sleep(0.1)
        job.wait(logs=True)
        return job.describe()
"""


def run_sdk(processing, run_python, tmp_path, script, files):
    data = processing.put("processing-sdk/data/a.csv", b"1,2\n3,4\n5,6\n7,8\n")
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(textwrap.dedent(text))
    (tmp_path / "run.py").write_text(textwrap.dedent(SDK) + textwrap.dedent(script))
    return run_python(tmp_path / "run.py", processing.role, data.rpartition("/")[0])


SPLIT = """
    import argparse, pathlib
    parser = argparse.ArgumentParser()
    parser.add_argument("--test-rows", type=int)
    rows = parser.parse_args().test_rows
    lines = pathlib.Path("/opt/ml/processing/input/a.csv").read_text().splitlines()
    print("rows", len(lines), flush=True)
    pathlib.Path("/opt/ml/processing/train/train.csv").write_text("\\n".join(lines[rows:]))
    pathlib.Path("/opt/ml/processing/test/test.csv").write_text("\\n".join(lines[:rows]))
"""


def test_processors_of_the_sdk(processing, run_python, tmp_path):
    """All in one process, since the SDK takes its time to be imported."""
    printed = run_sdk(
        processing,
        run_python,
        tmp_path,
        f"""
        from sagemaker.spark.processing import PySparkProcessor
        script = ScriptProcessor(image_uri="{BASE_IMAGE}", command=["python3"], **common)
        script.run(code="split.py", inputs=inputs, outputs=outputs, arguments=["--test-rows", "1"], wait=False)
        sklearn = SKLearnProcessor(framework_version="1.2-1", **common)
        sklearn.run(code="scale.py", inputs=inputs, wait=False)
        framework = FrameworkProcessor(estimator_cls=SKLearn, framework_version="1.2-1", **common)
        framework.run(code="main.py", source_dir="source", inputs=inputs, arguments=["--deep"], wait=False)
        spark = PySparkProcessor(framework_version="3.3", **common)
        spark.run(submit_app="split.py", arguments=["3"], wait=False)
        for processor in (script, sklearn, framework):
            print("status", finish(processor)["ProcessingJobStatus"])
        for output in script.latest_job.describe()["ProcessingOutputConfig"]["Outputs"]:
            [file] = sagemaker.s3.S3Downloader.list(output["S3Output"]["S3Uri"])
            print(output["OutputName"], sagemaker.s3.S3Downloader.read_file(file).split())
        try:
            finish(spark)
        except sagemaker.exceptions.UnexpectedStatusException as failure:
            print("failed", failure)
        """,
        {
            "split.py": SPLIT,
            "scale.py": """
            import sklearn.preprocessing, numpy
            data = numpy.loadtxt("/opt/ml/processing/input/a.csv", delimiter=",")
            print("mean", sklearn.preprocessing.StandardScaler().fit(data).mean_)
            """,
            "source/main.py": "import sys, helper, tiny\nprint('main', sys.argv[1:], helper.name, tiny.value)\n",
            "source/helper.py": "name = 'helper'\n",
            "source/requirements.txt": "./package\n",
            "source/package/setup.py": "from setuptools import setup\nsetup(name='tiny', version='1', py_modules=['tiny'])\n",
            "source/package/tiny.py": "value = 42\n",
        },
    )
    assert printed.count("status Completed") == 3, printed
    assert "rows 4" in printed, "the SDK shows the log"
    assert "train ['3,4', '5,6', '7,8']" in printed and "test ['1,2']" in printed
    assert "mean [4. 5.]" in printed
    assert "main ['--deep'] helper 42" in printed
    # The catalogue of the tests leaves the large package out.
    assert "the package pyspark is not in the environment of this image" in printed


def test_version_3_of_the_sdk(processing, run_python, tmp_path):
    data = processing.put("processing-v3/data/a.csv", b"1,2\n3,4\n")
    (tmp_path / "split.py").write_text(textwrap.dedent(SPLIT))
    script = f"""
        import sys
        import time
        from sagemaker.core.processing import ScriptProcessor
        from sagemaker.core.shapes import ProcessingInput, ProcessingOutput, ProcessingS3Input, ProcessingS3Output
        role, data, target = sys.argv[1:]
        processor = ScriptProcessor(
            image_uri="{BASE_IMAGE}", command=["python3"], role=role, instance_count=1, instance_type="ml.t3.medium"
        )
        source = ProcessingS3Input(s3_uri=data, local_path="/opt/ml/processing/input", s3_data_type="S3Prefix", s3_input_mode="File")
        outputs = [
            ProcessingOutput(
                output_name=name,
                s3_output=ProcessingS3Output(
                    s3_uri=target + "/" + name, local_path="/opt/ml/processing/" + name, s3_upload_mode="EndOfJob"
                ),
            )
            for name in ("train", "test")
        ]
        processor.run(
            code="split.py", inputs=[ProcessingInput(input_name="data", s3_input=source)], outputs=outputs,
            arguments=["--test-rows", "1"], wait=False,
        )
        job = processor.latest_job.refresh()
        while job.processing_job_status == "InProgress":
            time.sleep(0.1)
            job.refresh()
        print("status", job.processing_job_status)
    """
    (tmp_path / "run.py").write_text(textwrap.dedent(script))
    target = f"s3://{processing.bucket}/processing-v3/out"
    printed = run_python(tmp_path / "run.py", processing.role, data, target, python=os.environ["MODELYARD_SDK3_PYTHON"])
    assert "status Completed" in printed
    assert processing.get("processing-v3/out/test/test.csv") == b"1,2"
