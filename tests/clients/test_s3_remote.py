"""Buckets of another S3 store behind the front: every operation reaches it, jobs read and write there, and its faults are told."""

import hashlib
import io
import json
import os
import socket
import subprocess
import tarfile
import threading
import uuid

import pytest
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

from conftest import BINARY, Jobs, Server, poll
from faults import FaultyServer
from s3_tools import MIB, body, other_account, refused, s3  # noqa: F401 (fixtures)


@pytest.fixture(scope="module")
def far(tmp_path_factory):
    """The other store: a second server with a bucket."""
    far = Server(tmp_path_factory.mktemp("far") / "data").start()
    far.client("s3").create_bucket(Bucket="far-bucket")
    yield far
    if far.process.poll() is None:
        far.stop()


def credentials(far, **changed):
    connection = {**far.connection, **changed}
    return f"[default]\naws_access_key_id = {connection['access_key_id']}\naws_secret_access_key = {connection['secret_access_key']}\n"


def add(server, far, *flags, prefix=""):
    """Registers the bucket of the other store with a prefix of its own."""
    name = f"remote-{uuid.uuid4().hex[:12]}"
    prefix = prefix or name
    url = f"{far.endpoint.rstrip('/')}/far-bucket/{prefix}"
    server.command("bucket", "add", name, "--remote", url, "--credentials", "-", *flags, input=credentials(far))
    return name


def not_added(server, *words, **options):
    done = subprocess.run(
        [BINARY, "bucket", "add", "never", *words, "--data-dir", server.data_dir], capture_output=True, text=True, timeout=60, **options
    )
    assert done.returncode != 0
    return done.stderr


def keys(s3, bucket, **arguments):
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, **arguments)
    return [entry["Key"] for page in pages for entry in page.get("Contents", [])]


def test_objects_are_those_of_the_other_store(server, far, s3):
    there, bucket = far.client("s3"), add(server, far)
    put = s3.put_object(Bucket=bucket, Key="a//b c+ü&", Body=b"content", ContentType="text/x", CacheControl="no-store", Metadata={"a": "b"})
    assert put["ETag"] == f'"{hashlib.md5(b"content").hexdigest()}"'
    far_key = f"{bucket}/a//b c+ü&"
    seen = there.get_object(Bucket="far-bucket", Key=far_key)
    assert (seen["Body"].read(), seen["ContentType"], seen["CacheControl"], seen["Metadata"]) == (b"content", "text/x", "no-store", {"a": "b"})
    there.put_object(Bucket="far-bucket", Key=f"{bucket}/theirs", Body=b"0123456789", Metadata={"x": "y"}, StorageClass="STANDARD_IA")
    head = s3.head_object(Bucket=bucket, Key="theirs")
    assert (head["ContentLength"], head["Metadata"], head["StorageClass"]) == (10, {"x": "y"}, "STANDARD_IA")
    assert body(s3, bucket, "theirs", Range="bytes=2-4") == b"234"
    assert body(s3, bucket, "theirs", Range="bytes=-3") == b"789"
    assert body(s3, bucket, "theirs", PartNumber=1) == b"0123456789"
    refused(s3.get_object, "InvalidRange", 416, Bucket=bucket, Key="theirs", Range="bytes=10-")
    refused(s3.get_object, "NoSuchKey", 404, Bucket=bucket, Key="missing")
    refused(s3.get_object, "PreconditionFailed", 412, Bucket=bucket, Key="theirs", IfMatch='"x"')
    s3.put_object(Bucket=bucket, Key="empty", Body=b"")
    assert body(s3, bucket, "empty") == b""
    refused(s3.put_object, "PreconditionFailed", 412, Bucket=bucket, Key="theirs", Body=b"x", IfNoneMatch="*")
    refused(s3.put_object, "PreconditionFailed", 412, Bucket=bucket, Key="theirs", Body=b"x", IfMatch='"x"')
    s3.put_object(Bucket=bucket, Key="theirs", Body=b"new", IfMatch=head["ETag"])
    assert there.get_object(Bucket="far-bucket", Key=f"{bucket}/theirs")["Body"].read() == b"new"
    s3.delete_object(Bucket=bucket, Key="theirs")
    s3.delete_object(Bucket=bucket, Key="theirs")
    gone = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "empty"}, {"Key": "never"}]})
    assert {entry["Key"] for entry in gone["Deleted"]} == {"empty", "never"}
    assert keys(there, "far-bucket", Prefix=f"{bucket}/") == [far_key]


def test_lists_are_in_order_and_in_pages(server, far, s3):
    there, bucket = far.client("s3"), add(server, far)
    names = ["a", "b/", "b/1", "b/2", "b//3", "b0", "c/x/y", "c d+e&", "é/1", "é/2", "z"]
    for name in names:
        there.put_object(Bucket="far-bucket", Key=f"{bucket}/{name}", Body=name.encode())
    there.put_object(Bucket="far-bucket", Key=f"{bucket}-not/x", Body=b"")
    names.sort(key=str.encode)
    assert keys(s3, bucket) == names
    assert keys(s3, bucket, PaginationConfig={"PageSize": 2}) == names
    assert keys(s3, bucket, Prefix="b/", StartAfter="b/1") == ["b/2"]
    for size in (1, 2, 1000):
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Delimiter="/", PaginationConfig={"PageSize": size})
        folded = [entry["Prefix"] for page in pages for entry in page.get("CommonPrefixes", [])]
        assert folded == ["b/", "c/", "é/"], size
        pages = s3.get_paginator("list_objects").paginate(Bucket=bucket, Delimiter="/", PaginationConfig={"PageSize": size})
        plain = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
        assert plain == ["a", "b0", "c d+e&", "z"], size
    assert s3.list_objects_v2(Bucket=bucket, MaxKeys=0)["KeyCount"] == 0


def test_uploads_in_parts_go_to_the_other_store_part_by_part(server, far, s3, tmp_path):
    there, bucket = far.client("s3"), add(server, far)
    content = os.urandom(11 * MIB)
    s3.upload_fileobj(io.BytesIO(content), bucket, "large", Config=TransferConfig(multipart_threshold=5 * MIB, multipart_chunksize=5 * MIB))
    head = s3.head_object(Bucket=bucket, Key="large", ChecksumMode="ENABLED")
    assert head["ETag"].endswith('-3"') and head["ChecksumType"] and head["ContentLength"] == len(content)
    assert there.head_object(Bucket="far-bucket", Key=f"{bucket}/large")["ETag"] == head["ETag"]
    assert body(s3, bucket, "large") == content
    assert body(s3, bucket, "large", PartNumber=3) == content[10 * MIB :]
    assert body(s3, bucket, "large", Range=f"bytes={6 * MIB}-{6 * MIB + 9}") == content[6 * MIB : 6 * MIB + 10]
    upload = s3.create_multipart_upload(Bucket=bucket, Key="copied", ContentType="text/y")["UploadId"]
    part = {"Bucket": bucket, "Key": "copied", "UploadId": upload, "CopySource": {"Bucket": bucket, "Key": "large"}}
    first = s3.upload_part_copy(PartNumber=1, CopySourceRange=f"bytes=0-{5 * MIB - 1}", **part)["CopyPartResult"]["ETag"]
    second = s3.upload_part(Bucket=bucket, Key="copied", UploadId=upload, PartNumber=2, Body=b"end")["ETag"]
    assert [entry["Size"] for entry in s3.list_parts(Bucket=bucket, Key="copied", UploadId=upload)["Parts"]] == [5 * MIB, 3]
    assert [entry["Key"] for entry in s3.list_multipart_uploads(Bucket=bucket)["Uploads"]] == ["copied"]
    parts = [{"PartNumber": 1, "ETag": first}, {"PartNumber": 2, "ETag": second}]
    done = s3.complete_multipart_upload(Bucket=bucket, Key="copied", UploadId=upload, MultipartUpload={"Parts": parts})
    again = s3.complete_multipart_upload(Bucket=bucket, Key="copied", UploadId=upload, MultipartUpload={"Parts": parts})
    assert again["ETag"] == done["ETag"]
    assert there.get_object(Bucket="far-bucket", Key=f"{bucket}/copied")["ContentType"] == "text/y"
    assert body(s3, bucket, "copied") == content[: 5 * MIB] + b"end"
    upload = s3.create_multipart_upload(Bucket=bucket, Key="given-up")["UploadId"]
    s3.upload_part(Bucket=bucket, Key="given-up", UploadId=upload, PartNumber=1, Body=b"x")
    s3.abort_multipart_upload(Bucket=bucket, Key="given-up", UploadId=upload)
    refused(s3.upload_part, "NoSuchUpload", 404, Bucket=bucket, Key="given-up", UploadId=upload, PartNumber=1, Body=b"x")
    assert not there.list_multipart_uploads(Bucket="far-bucket", Prefix=f"{bucket}/").get("Uploads")


def test_a_large_object_in_one_request_is_sent_in_parts(server, far, s3):
    there, bucket = far.client("s3"), add(server, far)
    content = os.urandom(1 * MIB) * 70
    s3.put_object(Bucket=bucket, Key="large", Body=content, Metadata={"k": "v"})
    head = there.head_object(Bucket="far-bucket", Key=f"{bucket}/large")
    assert (head["ETag"][-3:], head["Metadata"], head["ContentLength"]) == ('-5"', {"k": "v"}, len(content))
    assert hashlib.md5(body(s3, bucket, "large")).digest() == hashlib.md5(content).digest()
    assert not there.list_multipart_uploads(Bucket="far-bucket", Prefix=f"{bucket}/").get("Uploads")


def test_copies_cross_between_stores(server, far, s3, bucket):
    remote = add(server, far)
    s3.put_object(Bucket=bucket, Key="source", Body=b"here", Metadata={"a": "1"})
    s3.copy_object(Bucket=remote, Key="copy", CopySource={"Bucket": bucket, "Key": "source"})
    assert s3.head_object(Bucket=remote, Key="copy")["Metadata"] == {"a": "1"}
    s3.copy_object(Bucket=remote, Key="copy", CopySource={"Bucket": remote, "Key": "copy"}, MetadataDirective="REPLACE", Metadata={"b": "2"})
    assert s3.head_object(Bucket=remote, Key="copy")["Metadata"] == {"b": "2"}
    s3.copy_object(Bucket=bucket, Key="back", CopySource={"Bucket": remote, "Key": "copy"})
    assert body(s3, bucket, "back") == b"here"


def test_what_is_not_done_there_is_refused_by_name(server, far, s3):
    bucket = add(server, far)
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    for call, arguments, word in [
        (s3.put_object, {"Key": "k", "Body": b"x", "Tagging": "a=b"}, "tag"),
        (s3.put_object_tagging, {"Key": "k", "Tagging": {"TagSet": [{"Key": "a", "Value": "b"}]}}, "tag"),
        (s3.get_object_tagging, {"Key": "k"}, "tag"),
        (s3.put_object, {"Key": "k", "Body": b"x", "ServerSideEncryption": "AES256"}, "encrypt"),
        (s3.create_multipart_upload, {"Key": "k", "ServerSideEncryption": "aws:kms"}, "encrypt"),
        (s3.put_bucket_encryption, {"ServerSideEncryptionConfiguration": {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]}}, "encrypt"),
        (s3.put_bucket_lifecycle_configuration, {"LifecycleConfiguration": {"Rules": [{"Status": "Enabled", "Filter": {}, "Expiration": {"Days": 1}}]}}, "lifecycle"),
        (s3.delete_bucket, {}, "bucket remove"),
        (s3.put_object, {"Key": "../../other", "Body": b"x"}, "`..`"),
    ]:
        with pytest.raises(ClientError) as caught:
            call(Bucket=bucket, **arguments)
        response = caught.value.response
        assert response["ResponseMetadata"]["HTTPStatusCode"] == 400, response
        assert word in response["Error"]["Message"], response
    refused(s3.get_object, "NoSuchKey", 404, Bucket=bucket, Key="../x")
    only_read = add(server, far, "--read-only", prefix=bucket)
    assert body(s3, only_read, "k") == b"x"
    refused(s3.put_object, "AccessDenied", 403, Bucket=only_read, Key="k", Body=b"x")
    refused(s3.delete_object, "AccessDenied", 403, Bucket=only_read, Key="k")
    refused(s3.create_multipart_upload, "AccessDenied", 403, Bucket=only_read, Key="k")


def test_changes_are_events(server, far, s3):
    bucket = add(server, far)
    s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration={"EventBridgeConfiguration": {}})
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    s3.delete_object(Bucket=bucket, Key="k")
    events = [json.loads(line) for line in server.command("events", "--output", "json").splitlines() if bucket in line]
    assert "Object Created" in json.dumps(events) and "Object Deleted" in json.dumps(events)


def test_only_who_administers_registers_and_secrets_stay_secret(server, far, s3, other_account):
    connection = far.connection
    url = f"{far.endpoint.rstrip('/')}/far-bucket"
    wrong = not_added(server, "--remote", url, "--credentials", "-", input=credentials(far, secret_access_key="wrong-secret-value"))
    assert "refuses access" in wrong and "SignatureDoesNotMatch" in wrong and "wrong-secret-value" not in wrong
    assert "does not exist" in not_added(server, "--remote", f"{url}-missing", "--credentials", "-", input=credentials(far))
    assert "MODELYARD_REMOTE_ACCESS_KEY_ID" in not_added(server, "--remote", url)
    assert "--credentials" in not_added(server, "--remote", "https://a:b@host/bucket")
    for place in ("http://169.254.169.254/bucket", "http://[fe80::1]/bucket"):
        assert "--allow-link-local" in not_added(server, "--remote", place, "--credentials", "-", input=credentials(far))
    assert "not be used with" in not_added(server, "--remote", url, "--path", "/tmp")
    name = f"remote-{uuid.uuid4().hex[:12]}"
    variables = {
        **os.environ,
        "MODELYARD_REMOTE_ACCESS_KEY_ID": connection["access_key_id"],
        "MODELYARD_REMOTE_SECRET_ACCESS_KEY": connection["secret_access_key"],
    }
    server.command("bucket", "add", name, "--remote", f"{url}/p", "--region", "eu-west-1", env=variables)
    s3.put_object(Bucket=name, Key="k", Body=b"x")
    listed = {entry["Name"]: entry for entry in json.loads(server.command("bucket", "list", "--output", "json"))}
    assert listed[name]["Remote"] == f"{url}/p"
    other = server.client("s3", other_account["key"], other_account["secret"])
    refused(other.get_object, "AccessDenied", 403, Bucket=name, Key="k")
    secret = connection["secret_access_key"].encode()
    for file in [server.log, *server.data_dir.glob("modelyard.db*")]:
        assert secret not in file.read_bytes(), file
    server.command("bucket", "remove", name)
    refused(s3.get_object, "NoSuchBucket", 404, Bucket=name, Key="k")
    assert body(far.client("s3"), "far-bucket", "p/k") == b"x"


TRAIN = """
import os
for channel in ("files", "fast"):
    folder = f"/opt/ml/input/data/{channel}"
    names = sorted(os.path.relpath(os.path.join(at, name), folder) for at, _, files in os.walk(folder) for name in files)
    text = "".join(open(os.path.join(folder, name)).read() for name in names)
    print(channel, names, text, flush=True)
with open("/opt/ml/input/data/pipe_0", "rb") as pipe:
    print("pipe", pipe.read(), flush=True)
print("checkpoint", open("/opt/ml/checkpoints/earlier").read(), flush=True)
open("/opt/ml/checkpoints/later", "w").write("later")
open("/opt/ml/model/weights", "w").write("trained")
"""


def test_a_job_reads_from_and_writes_to_a_remote_bucket(server, far, s3, bucket, role):
    there, remote = far.client("s3"), add(server, far)
    for key, content in {"data/a": b"A", "data/deep/b": b"B", "ckpt/earlier": b"E"}.items():
        there.put_object(Bucket="far-bucket", Key=f"{remote}/{key}", Body=content)
    jobs, name = Jobs(server, remote, role), f"remote-{uuid.uuid4().hex[:8]}"

    def channel(name, mode):
        source = {"S3DataType": "S3Prefix", "S3Uri": f"s3://{remote}/data/", "S3DataDistributionType": "FullyReplicated"}
        return {"ChannelName": name, "InputMode": mode, "DataSource": {"S3DataSource": source}}

    job = jobs.run(
        name,
        TRAIN,
        InputDataConfig=[channel("files", "File"), channel("fast", "FastFile"), channel("pipe", "Pipe")],
        CheckpointConfig={"S3Uri": f"s3://{remote}/ckpt"},
    )
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    lines = jobs.lines(name)
    for line in ("files ['a', 'deep/b'] AB", "fast ['a', 'deep/b'] AB", "pipe b'AB'", "checkpoint E"):
        assert line in lines, lines
    model = there.get_object(Bucket="far-bucket", Key=f"{remote}/models/{name}/output/model.tar.gz")["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(model)) as archive:
        assert archive.extractfile("weights").read() == b"trained"
    assert there.get_object(Bucket="far-bucket", Key=f"{remote}/ckpt/later")["Body"].read() == b"later"


def test_the_other_store_goes_and_comes_back(server, s3, tmp_path):
    far = Server(tmp_path / "data").start()
    far.client("s3").create_bucket(Bucket="far-bucket")
    bucket = add(server, far)
    s3.put_object(Bucket=bucket, Key="k", Body=b"kept")
    upload = s3.create_multipart_upload(Bucket=bucket, Key="parts")["UploadId"]
    first = s3.upload_part(Bucket=bucket, Key="parts", UploadId=upload, PartNumber=1, Body=b"1" * 5 * MIB)["ETag"]
    far.kill()
    for call, arguments in [
        (s3.get_object, {"Key": "k"}),
        (s3.put_object, {"Key": "new", "Body": b"x"}),
        (s3.list_objects_v2, {}),
        (s3.upload_part, {"Key": "parts", "UploadId": upload, "PartNumber": 2, "Body": b"2"}),
    ]:
        with pytest.raises(ClientError) as caught:
            call(Bucket=bucket, **arguments)
        response = caught.value.response
        assert (response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]) == ("ServiceUnavailable", 503), response
        assert far.endpoint.split("//")[1].rstrip("/") in response["Error"]["Message"] and "refused" in response["Error"]["Message"], response
    far.start()
    assert body(s3, bucket, "k") == b"kept"
    refused(s3.get_object, "NoSuchKey", 404, Bucket=bucket, Key="new")
    second = s3.upload_part(Bucket=bucket, Key="parts", UploadId=upload, PartNumber=2, Body=b"2")["ETag"]
    parts = [{"PartNumber": 1, "ETag": first}, {"PartNumber": 2, "ETag": second}]
    s3.complete_multipart_upload(Bucket=bucket, Key="parts", UploadId=upload, MultipartUpload={"Parts": parts})
    assert body(s3, bucket, "parts") == b"1" * 5 * MIB + b"2"
    # The keys change there: until they are set here, the refusal is told as one.
    account = f"{uuid.uuid4().int % 10**12:012}"
    stranger = json.loads(far.command("accounts", "add", account, "--output", "json"))
    renewed = credentials(far, access_key_id=stranger["AccessKeyId"], secret_access_key=stranger["SecretAccessKey"])
    done = subprocess.run(
        [BINARY, "bucket", "credentials", bucket, "--credentials", "-", "--data-dir", server.data_dir], input=renewed, capture_output=True, text=True
    )
    assert done.returncode != 0 and "refuses access" in done.stderr
    server.command("bucket", "credentials", bucket, "--credentials", "-", input=credentials(far))
    assert body(s3, bucket, "k") == b"kept"
    far.stop()


class CuttingProxy:
    """A way to a store whose connections break after a number of bytes of answers."""

    def __init__(self, far):
        self.target = ("127.0.0.1", int(far.endpoint.rstrip("/").rsplit(":", 1)[1]))
        self.most, self.cuts = None, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            there = socket.create_connection(self.target)
            threading.Thread(target=self.pass_on, args=(near, there, False), daemon=True).start()
            threading.Thread(target=self.pass_on, args=(there, near, True), daemon=True).start()

    def pass_on(self, source, target, is_answer):
        passed = 0
        try:
            while data := source.recv(65536):
                passed += len(data)
                if is_answer and self.most is not None and passed > self.most:
                    self.cuts += 1
                    break
                target.sendall(data)
        except OSError:
            pass
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def test_reads_that_break_off_are_taken_up(server, far, s3, tmp_path):
    proxy = CuttingProxy(far)
    name = f"remote-{uuid.uuid4().hex[:12]}"
    server.command("bucket", "add", name, "--remote", f"{proxy.endpoint}/far-bucket/{name}", "--credentials", "-", input=credentials(far))
    content = os.urandom(9 * MIB)
    far.client("s3").put_object(Bucket="far-bucket", Key=f"{name}/k", Body=content)
    proxy.most = 4 * MIB
    assert body(s3, name, "k") == content
    assert body(s3, name, "k", Range=f"bytes={MIB}-") == content[MIB:]
    assert proxy.cuts >= 3
    proxy.most = 0
    assert refused(s3.head_object, "503", 503, Bucket=name, Key="k")
    proxy.listener.close()


def test_a_store_with_a_certificate_of_its_own(server, s3, tmp_path):
    far = Server(tmp_path / "data", "--tls").start()
    far.client("s3").create_bucket(Bucket="far-bucket")
    bundle = far.connection["ca_bundle"]
    wrong = not_added(server, "--remote", f"{far.endpoint.rstrip('/')}/far-bucket", "--credentials", "-", input=credentials(far))
    assert "certificate" in wrong
    bucket = add(server, far, "--ca-bundle", bundle)
    s3.put_object(Bucket=bucket, Key="k", Body=b"x" * MIB)
    assert body(s3, bucket, "k") == b"x" * MIB
    far.stop()


def test_a_kill_leaves_no_half_of_a_remote_write(far, tmp_path):
    near = FaultyServer(tmp_path).start()
    there, bucket = far.client("s3"), add(near, far)
    s3 = near.client("s3")
    upload = s3.create_multipart_upload(Bucket=bucket, Key="parts")["UploadId"]
    part = {"Bucket": bucket, "Key": "parts", "UploadId": upload}
    etag = s3.upload_part(PartNumber=1, Body=b"1" * 100, **part)["ETag"]
    parts = {"Parts": [{"PartNumber": 1, "ETag": etag}]}

    def killed(call, **arguments):
        near.arm("remote-written")
        with pytest.raises(Exception):
            call(**arguments)
        poll(near.has_died, "the server was killed")
        near.disarm("remote-written")
        near.restart()
        return near.client("s3")

    s3 = killed(s3.put_object, Bucket=bucket, Key="one", Body=b"one")
    assert body(s3, bucket, "one") == b"one", "the other store had acknowledged it"
    s3 = killed(s3.complete_multipart_upload, MultipartUpload=parts, **part)
    done = s3.complete_multipart_upload(MultipartUpload=parts, **part)
    assert done["ETag"].endswith('-1"') and body(s3, bucket, "parts") == b"1" * 100
    s3 = killed(s3.delete_object, Bucket=bucket, Key="one")
    refused(s3.get_object, "NoSuchKey", 404, Bucket=bucket, Key="one")
    assert not there.list_multipart_uploads(Bucket="far-bucket", Prefix=f"{bucket}/").get("Uploads")
    strays = [path for path in (near.data_dir / "buckets").rglob("*") if path.is_file()]
    assert strays == []
    near.stop()
