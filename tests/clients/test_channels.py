"""Every kind of input channel, uncompressed models, checkpoints and TensorBoard output, in jobs that really run."""

import gzip
import json
import struct
import textwrap

import pytest

from conftest import BASE_IMAGE, Jobs, poll

READ_EVERYTHING = """
import os, sys
for folder, _, names in sorted(os.walk("/opt/ml/input/data/train")):
    for name in sorted(names):
        path = os.path.join(folder, name)
        print(os.path.relpath(path, "/opt/ml/input/data/train"), open(path).read())
"""


def channel(jobs, prefix, name="train", kind="S3Prefix", **options):
    source = {"S3DataType": kind, "S3Uri": f"s3://{jobs.bucket}/{prefix}"}
    for field in ("S3DataDistributionType", "AttributeNames"):
        if field in options:
            source[field] = options.pop(field)
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}, **options}


def put(jobs, **objects):
    for key, body in objects.items():
        jobs.s3.put_object(Bucket=jobs.bucket, Key=key, Body=body)


def completed(jobs, name):
    job = jobs.wait(name)
    assert job["TrainingJobStatus"] == "Completed", (job.get("FailureReason"), jobs.lines(name))
    return jobs.lines(name)


def failed(jobs, name, script="print('never')", **request):
    job = jobs.run(name, script, **request)
    assert job["TrainingJobStatus"] == "Failed", job
    return job["FailureReason"]


def test_the_sdk_asks_for_every_kind_of_channel(jobs, run_python, tmp_path):
    put(jobs, **{f"sdk/data/{name}.csv": f"{name}\n".encode() for name in "abcd"})
    manifest = [{"prefix": f"s3://{jobs.bucket}/sdk/"}, "data/c.csv", "data/a.csv"]
    lines = [{"text-ref": f"s3://{jobs.bucket}/sdk/data/{name}.csv", "label": {"of": name}} for name in "ab"]
    put(
        jobs,
        **{
            "sdk/list.manifest": json.dumps(manifest).encode(),
            "sdk/augmented.manifest": "".join(json.dumps(line) + "\n" for line in lines).encode(),
            "sdk/packed.gz": gzip.compress(b"unpacked"),
        },
    )
    source = tmp_path / "source"
    source.mkdir()
    (source / "train.py").write_text(
        textwrap.dedent(
            """
            import json, os
            data = "/opt/ml/input/data/"
            pipe = lambda name, epoch: open(f"{data}{name}_{epoch}", "rb").read()
            print("sharded", pipe("sharded", 0), pipe("sharded", 1))
            orders = [pipe("shuffled", epoch).decode().split() for epoch in range(6)]
            print("shuffled", {"".join(sorted(order)) for order in orders}, len({tuple(order) for order in orders}) > 1)
            print("augmented", pipe("augmented", 0))
            print("packed", pipe("packed", 0))
            print("listed", sorted(os.path.join(folder, name) for folder, _, names in os.walk(data + "listed") for name in names))
            print("fast", sorted(os.listdir(data + "fast")), open(data + "fast/b.csv").read().strip())
            shown = json.load(open("/opt/ml/input/config/inputdataconfig.json"))
            print("modes", {name: one["TrainingInputMode"] for name, one in sorted(shown.items())})
            print("shown", sorted(shown["augmented"].items()))
            """
        )
    )
    script = tmp_path / "fit.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import json, sagemaker
            from sagemaker.estimator import Estimator
            from sagemaker.inputs import ShuffleConfig, TrainingInput
            root = "s3://{jobs.bucket}/sdk/"
            estimator = Estimator(
                {BASE_IMAGE!r}, role=sagemaker.get_execution_role(), instance_count=1, instance_type="ml.m5.large",
                output_path="s3://{jobs.bucket}/models", source_dir={str(source)!r}, entry_point="train.py", input_mode="Pipe",
            )
            estimator.fit({{
                "sharded": TrainingInput(root + "data/", distribution="ShardedByS3Key", input_mode="Pipe"),
                "shuffled": TrainingInput(root + "data/", shuffle_config=ShuffleConfig(7)),
                "augmented": TrainingInput(
                    root + "augmented.manifest", s3_data_type="AugmentedManifestFile", attribute_names=["text-ref", "label"],
                    record_wrapping="RecordIO", content_type="application/x-recordio",
                ),
                "packed": TrainingInput(root + "packed.gz", compression="Gzip"),
                "listed": TrainingInput(root + "list.manifest", s3_data_type="ManifestFile", input_mode="File"),
                "fast": TrainingInput(root + "data", input_mode="FastFile"),
            }}, wait=False)
            print("started", estimator.latest_training_job.name)
            """
        )
    )
    name = run_python(script).split("started ")[1].strip()
    lines = completed(jobs, name)
    record = lambda content: struct.pack("<II", 0xCED7230A, len(content)) + content + b"\0" * (-len(content) % 4)
    augmented = b"".join(record(f"{one}\n".encode()) + record(json.dumps({"of": one}, separators=(",", ":")).encode()) for one in "ab")
    modes = {"augmented": "Pipe", "fast": "FastFile", "listed": "File", "packed": "Pipe", "sharded": "Pipe", "shuffled": "Pipe"}
    for line in (
        "sharded {0!r} {0!r}".format(b"a\nb\nc\nd\n"),
        "shuffled {'abcd'} True",
        f"augmented {augmented!r}",
        f"packed {b'unpacked'!r}",
        "listed ['/opt/ml/input/data/listed/data/a.csv', '/opt/ml/input/data/listed/data/c.csv']",
        "fast ['a.csv', 'b.csv', 'c.csv', 'd.csv'] b",
        f"modes {modes}",
        "shown [('ContentType', 'application/x-recordio'), ('RecordWrapperType', 'RecordIO'), "
        "('S3DistributionType', 'FullyReplicated'), ('TrainingInputMode', 'Pipe')]",
    ):
        assert line in lines, (line, lines)


def test_a_small_channel_may_be_changed_and_a_shown_one_not(jobs):
    put(jobs, **{"writable/a": b"as stored", "large/a": b"as stored", "large/b": bytes(64 << 20)})
    script = """
    import os
    for name in ("copied", "fast", "large"):
        path = f"/opt/ml/input/data/{name}/a"
        for attempt in (
            lambda: open(path, "a").write("!"),
            lambda: os.chmod(path, 0o777),
            lambda: os.rename(path, path + "1"),
            lambda: open(path + "2", "w"),
        ):
            try:
                attempt()
                print(name, "changed")
            except OSError as error:
                print(name, "refused")
    """
    channels = [
        channel(jobs, "writable/", "copied"),
        channel(jobs, "writable/", "fast", InputMode="FastFile"),
        channel(jobs, "large/", "large"),
    ]
    jobs.start("writable", script, InputDataConfig=channels)
    said = [line for line in completed(jobs, "writable") if line.endswith((" changed", " refused"))]
    assert said == ["copied changed"] * 4 + ["fast refused"] * 4 + ["large refused"] * 4
    for key in ("writable/a", "large/a"):
        assert jobs.s3.get_object(Bucket=jobs.bucket, Key=key)["Body"].read() == b"as stored"
    for number, target in enumerate(("new", "a")):
        script = f"open('/opt/ml/input/data/train/{target}', 'w')"
        shown = [channel(jobs, "writable/", InputMode="FastFile")]
        assert "write to another folder" in failed(jobs, f"written-{number}", script, InputDataConfig=shown)


def test_objects_that_change_meanwhile_do_not_disturb_the_job(jobs):
    put(jobs, **{"meanwhile/a": b"first", "meanwhile/b": b"kept"})
    script = f"""
    import os, signal, threading
    go = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: go.set())
    print("ready", flush=True)
    go.wait()
{textwrap.indent(READ_EVERYTHING, "    ")}
    print(open("/opt/ml/input/data/sent_0").read())
    """
    channels = [channel(jobs, "meanwhile/", InputMode="FastFile"), channel(jobs, "meanwhile/", "sent", InputMode="Pipe")]
    jobs.start("meanwhile", script, InputDataConfig=channels)
    jobs.wait_for_line("meanwhile", "ready")
    put(jobs, **{"meanwhile/a": b"second", "meanwhile/new": b"new"})
    jobs.s3.delete_object(Bucket=jobs.bucket, Key="meanwhile/b")
    jobs.sagemaker.stop_training_job(TrainingJobName="meanwhile")
    assert jobs.wait("meanwhile")["TrainingJobStatus"] == "Stopped"
    lines = jobs.lines("meanwhile")
    assert lines[-3:] == ["a first", "b kept", "firstkept"], lines


def test_a_stream_outlives_the_server(own_server):
    server = own_server
    server.client("s3").create_bucket(Bucket="streams")
    jobs = Jobs(server, "streams", server.client("iam").get_role(RoleName="ModelyardExecutionRole")["Role"]["Arn"])
    put(jobs, **{f"data/{number}": bytes([number]) * (1 << 20) for number in range(8)})
    script = """
    import hashlib, signal, threading
    with open("/opt/ml/input/data/train_0", "rb") as stream:
        begun = stream.read(1 << 20)
        print("begun", flush=True)
        go = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: go.set())
        go.wait()
        rest = stream.read()
    again = open("/opt/ml/input/data/train_1", "rb").read()
    print(len(begun + rest), begun + rest == again, flush=True)
    """
    jobs.start("stream", script, InputDataConfig=[channel(jobs, "data/", InputMode="Pipe")])
    jobs.wait_for_line("stream", "begun")
    server.kill()
    server.start()
    jobs = Jobs(server, "streams", jobs.role)
    jobs.sagemaker.stop_training_job(TrainingJobName="stream")
    assert jobs.wait("stream")["TrainingJobStatus"] == "Stopped"
    assert "8388608 True" in jobs.lines("stream")


def test_what_is_wrong_with_a_channel_is_named(jobs):
    put(
        jobs,
        **{
            "bad/a": b"a",
            "bad/missing": json.dumps([{"prefix": f"s3://{jobs.bucket}/bad/"}, "a", "deep/b.csv"]).encode(),
            "bad/escape": json.dumps([{"prefix": f"s3://{jobs.bucket}/bad/"}, "../../etc/passwd"]).encode(),
            "bad/../../etc/passwd": b"x",
            "bad/text": b"a.csv\nb.csv\n",
            "bad/bomb": b"[" * 5_000_000,
            "bad/lines": json.dumps({"x-ref": f"s3://{jobs.bucket}/bad/a"}).encode() + b"\n" + json.dumps({"x-ref": f"s3://{jobs.bucket}/gone"}).encode(),
            "bad/not-gzip": b"plain text that is not compressed",
        },
    )
    manifest = lambda key: {"InputDataConfig": [channel(jobs, f"bad/{key}", kind="ManifestFile")]}
    assert f"s3://{jobs.bucket}/bad/deep/b.csv does not exist" in failed(jobs, "bad-missing", **manifest("missing"))
    assert "../../etc/passwd" in failed(jobs, "bad-escape", **manifest("escape"))
    assert f"s3://{jobs.bucket}/bad/text" in failed(jobs, "bad-text", **manifest("text"))
    assert "cannot be used" in failed(jobs, "bad-bomb", **manifest("bomb"))
    assert "bad/none" in failed(jobs, "bad-none", **manifest("none"))
    augmented = channel(jobs, "bad/lines", kind="AugmentedManifestFile", AttributeNames=["x-ref"], InputMode="Pipe")
    reason = failed(jobs, "bad-line", InputDataConfig=[augmented])
    assert f"s3://{jobs.bucket}/gone" in reason and "line 2" in reason
    # The program thinks that it did well; the stream was not whole.
    packed = channel(jobs, "bad/not-gzip", InputMode="Pipe", CompressionType="Gzip")
    reason = failed(jobs, "bad-gzip", "open('/opt/ml/input/data/train_0', 'rb').read()", InputDataConfig=[packed])
    assert f"s3://{jobs.bucket}/bad/not-gzip cannot be sent" in reason


def test_a_model_is_stored_as_it_is(jobs):
    script = """
    import os
    os.makedirs("/opt/ml/model/deep")
    open("/opt/ml/model/deep/weights", "w").write("weights")
    open("/opt/ml/model/config.json", "w").write("{}")
    os.symlink("deep/weights", "/opt/ml/model/latest")
    os.symlink("/etc/hostname", "/opt/ml/model/leak")
    os.mkfifo("/opt/ml/model/fifo")
    """
    jobs.start("uncompressed", script, OutputDataConfig={"S3OutputPath": f"s3://{jobs.bucket}/plain", "CompressionType": "NONE"})
    lines = completed(jobs, "uncompressed")
    assert jobs.describe("uncompressed")["ModelArtifacts"]["S3ModelArtifacts"] == f"s3://{jobs.bucket}/plain/uncompressed/output/model/"
    listed = jobs.s3.list_objects_v2(Bucket=jobs.bucket, Prefix="plain/uncompressed/")["Contents"]
    below = "plain/uncompressed/output/model/"
    assert [one["Key"].removeprefix(below) for one in listed] == ["config.json", "deep/weights", "latest"]
    assert jobs.s3.get_object(Bucket=jobs.bucket, Key=below + "latest")["Body"].read() == b"weights"
    assert any("leak" in line for line in lines) and any("fifo" in line for line in lines)


def test_checkpoints_are_stored_while_the_job_runs_and_restored(jobs):
    def stored(prefix):
        listed = jobs.s3.list_objects_v2(Bucket=jobs.bucket, Prefix=prefix).get("Contents", [])
        return {one["Key"].removeprefix(prefix): one["LastModified"] for one in listed}

    script = """
    import os, signal, sys, threading
    for folder, _, names in sorted(os.walk(sys.argv[-1])):
        for name in names:
            path = os.path.join(folder, name)
            print("found", name, open(path).read())
            open(path, "a").write("+")
    os.makedirs(sys.argv[-1] + "/step", exist_ok=True)
    open(sys.argv[-1] + "/step/1", "w").write("one")
    go = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: go.set())
    print("ready", flush=True)
    go.wait()
    open(sys.argv[-1] + "/last", "w").write("last")
    """
    for name, path in (("checkpoints-default", "/opt/ml/checkpoints"), ("checkpoints-own", "/checkpoints/deep")):
        config = {"S3Uri": f"s3://{jobs.bucket}/{name}"} | ({} if "default" in name else {"LocalPath": path})
        for run in range(2):
            jobs.start(f"{name}-{run}", script, CheckpointConfig=config, HyperParameters={"path": path})
            jobs.wait_for_line(f"{name}-{run}", "ready")
            poll(lambda: "step/1" in stored(name + "/"), "the checkpoint is stored while the job runs")
            jobs.sagemaker.stop_training_job(TrainingJobName=f"{name}-{run}")
            assert jobs.wait(f"{name}-{run}")["TrainingJobStatus"] == "Stopped"
            assert "last" in stored(name + "/")
        found = [line for line in jobs.lines(f"{name}-1") if line.startswith("found")]
        assert sorted(found) == ["found 1 one", "found last last"]
        assert jobs.s3.get_object(Bucket=jobs.bucket, Key=f"{name}/step/1")["Body"].read() == b"one"


def test_a_checkpoint_that_cannot_be_stored_fails_the_job(jobs):
    jobs.s3.create_bucket(Bucket="checkpoints-that-go")
    script = """
    import threading
    threading.Timer(1.5, lambda: open("/opt/ml/checkpoints/model.pt", "w").write("weights")).start()
    print("ready", flush=True)
    threading.Event().wait()
    """
    jobs.start("unstored", script, CheckpointConfig={"S3Uri": "s3://checkpoints-that-go/run"})
    jobs.wait_for_line("unstored", "ready")
    jobs.s3.delete_bucket(Bucket="checkpoints-that-go")
    job = jobs.wait("unstored")
    assert job["TrainingJobStatus"] == "Failed"
    assert "s3://checkpoints-that-go/run/model.pt could not be stored" in job["FailureReason"], job["FailureReason"]
    assert "checkpoints-that-go" in failed(jobs, "unstorable", CheckpointConfig={"S3Uri": "s3://checkpoints-that-go/run"})


def test_a_restarted_server_goes_on_with_checkpoints(own_server):
    server = own_server
    server.client("s3").create_bucket(Bucket="kept")
    jobs = Jobs(server, "kept", server.client("iam").get_role(RoleName="ModelyardExecutionRole")["Role"]["Arn"])
    keys = lambda: [one["Key"] for one in jobs.s3.list_objects_v2(Bucket="kept", Prefix="c/").get("Contents", [])]
    script = """
    import signal, threading
    open("/opt/ml/checkpoints/1", "w").write("one")
    threading.Timer(0.5, lambda: open("/opt/ml/output/tensorboard/events", "w").write("events")).start()
    go = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: go.set())
    print("ready", flush=True)
    go.wait()
    open("/opt/ml/checkpoints/2", "w").write("two")
    """
    jobs.start("kept", script, CheckpointConfig={"S3Uri": "s3://kept/c/"}, TensorBoardOutputConfig={"S3OutputPath": "s3://kept/tb"})
    poll(lambda: keys() == ["c/1"], "the first checkpoint is stored")
    before = jobs.s3.head_object(Bucket="kept", Key="c/1")
    server.kill()
    server.start()
    jobs = Jobs(server, "kept", jobs.role)
    assert jobs.s3.get_object(Bucket="kept", Key="c/1")["Body"].read() == b"one"
    jobs.sagemaker.stop_training_job(TrainingJobName="kept")
    assert jobs.wait("kept")["TrainingJobStatus"] == "Stopped"
    assert keys() == ["c/1", "c/2"]
    after = jobs.s3.head_object(Bucket="kept", Key="c/1")
    assert after["LastModified"] == before["LastModified"], "what was stored is not stored again"
    assert jobs.s3.get_object(Bucket="kept", Key="tb/kept/tensorboard-output/events")["Body"].read() == b"events"


def test_encrypted_objects_and_folders_of_the_machine_reach_the_job(server, jobs, tmp_path):
    key = server.client("kms").create_key()["KeyMetadata"]
    sealed = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": key["KeyId"]}
    for name in "ab":
        jobs.s3.put_object(Bucket=jobs.bucket, Key=f"sealed/{name}", Body=f"sealed {name}".encode(), **sealed)
    (tmp_path / "folder/deep").mkdir(parents=True)
    (tmp_path / "folder/deep/file").write_text("of the machine")
    server.command("bucket", "add", "machine-folder", "--path", tmp_path / "folder", "--read-only")
    script = """
    import os
    for folder, _, names in sorted(os.walk("/opt/ml/input/data")):
        for name in sorted(name for name in names if not name.startswith("piped")):
            path = os.path.join(folder, name)
            print("read", path.removeprefix("/opt/ml/input/data/"), open(path).read())
    print("read", "piped", open("/opt/ml/input/data/piped_0").read())
    open("/opt/ml/model/weights", "w").write("weights")
    """
    folder = {"S3DataType": "S3Prefix", "S3Uri": "s3://machine-folder/"}
    channels = [
        channel(jobs, "sealed/", "copied"),
        channel(jobs, "sealed/", "fast", InputMode="FastFile"),
        channel(jobs, "sealed/", "piped", InputMode="Pipe"),
        {"ChannelName": "machine", "DataSource": {"S3DataSource": folder}},
        {"ChannelName": "shown", "DataSource": {"S3DataSource": folder}, "InputMode": "FastFile"},
    ]
    output = {"S3OutputPath": f"s3://{jobs.bucket}/sealed-models", "KmsKeyId": key["KeyId"]}
    jobs.start("sealed", script, InputDataConfig=channels, OutputDataConfig=output)
    said = [line.removeprefix("read ") for line in completed(jobs, "sealed") if line.startswith("read ")]
    assert said == [
        "copied/a sealed a",
        "copied/b sealed b",
        "fast/a sealed a",
        "fast/b sealed b",
        "machine/deep/file of the machine",
        "shown/deep/file of the machine",
        "piped sealed asealed b",
    ]
    model = jobs.s3.head_object(Bucket=jobs.bucket, Key="sealed-models/sealed/output/model.tar.gz")
    assert (model["ServerSideEncryption"], model["SSEKMSKeyId"]) == ("aws:kms", key["Arn"])
    assert (tmp_path / "folder/deep/file").read_text() == "of the machine"
    with pytest.raises(jobs.sagemaker.exceptions.ClientError, match="OutputDataConfig.KmsKeyId"):
        jobs.start("keyless", script, OutputDataConfig={**output, "KmsKeyId": "alias/none"})
    resources = {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 10, "VolumeKmsKeyId": key["KeyId"]}
    with pytest.raises(jobs.sagemaker.exceptions.ClientError, match="ResourceConfig.VolumeKmsKeyId"):
        jobs.start("volume", script, ResourceConfig=resources)
    server.command("bucket", "remove", "machine-folder")
