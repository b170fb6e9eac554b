"""Folders of the machine as buckets: what lies in them is there, nothing outside of them is, and jobs read them."""

import os
import subprocess
import uuid

import pytest
from boto3.s3.transfer import TransferConfig

from conftest import BINARY
from s3_tools import MIB, body, other_account, refused, s3  # noqa: F401 (fixtures)


def add(server, folder, *flags):
    name = f"folder-{uuid.uuid4().hex[:12]}"
    server.command("bucket", "add", name, "--path", folder, *flags)
    return name


def keys(s3, bucket, **arguments):
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, **arguments)
    return [entry["Key"] for page in pages for entry in page.get("Contents", [])]


@pytest.fixture
def folder(tmp_path):
    """A folder with files, and with what must not be seen."""
    inside = tmp_path / "inside"
    (inside / "data/deep").mkdir(parents=True)
    (inside / "data.csv").write_bytes(b"a,b\n1,2\n")
    (inside / "data/one").write_bytes(b"one")
    (inside / "data/deep/two").write_bytes(b"two" * 100)
    (inside / "data-more").write_bytes(b"")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_bytes(b"secret")
    (inside / "link").symlink_to(tmp_path / "outside/secret")
    (inside / "data/way").symlink_to(tmp_path / "outside")
    os.mkfifo(inside / "fifo")
    return inside


def test_files_are_objects(server, s3, folder):
    bucket = add(server, folder)
    assert bucket in {entry["Name"] for entry in s3.list_buckets()["Buckets"]}
    everything = ["data-more", "data.csv", "data/deep/two", "data/one"]
    assert keys(s3, bucket) == everything
    assert keys(s3, bucket, PaginationConfig={"PageSize": 1}) == everything
    assert keys(s3, bucket, Prefix="data/") == ["data/deep/two", "data/one"]
    assert keys(s3, bucket, StartAfter="data/a") == ["data/deep/two", "data/one"]
    page = s3.list_objects_v2(Bucket=bucket, Delimiter="/")
    assert [entry["Prefix"] for entry in page["CommonPrefixes"]] == ["data/"]
    got = s3.get_object(Bucket=bucket, Key="data/deep/two")
    assert got["Body"].read() == b"two" * 100
    head = s3.head_object(Bucket=bucket, Key="data/deep/two")
    listed = next(entry for entry in s3.list_objects_v2(Bucket=bucket)["Contents"] if entry["Key"] == "data/deep/two")
    assert (head["ETag"], head["ContentLength"], listed["ETag"]) == (got["ETag"], 300, got["ETag"])
    assert body(s3, bucket, "data/deep/two", Range="bytes=1-3") == b"wot"
    (folder / "data/deep/two").write_bytes(b"new")
    assert body(s3, bucket, "data/deep/two") == b"new"
    assert s3.head_object(Bucket=bucket, Key="data/deep/two")["ETag"] != got["ETag"]
    refused(s3.get_object, "PreconditionFailed", 412, Bucket=bucket, Key="data/deep/two", IfMatch=got["ETag"])


def test_no_key_leads_out(server, s3, folder):
    bucket = add(server, folder)
    for key in ("link", "data/way/secret", "fifo", "data", "../outside/secret", "data/../../outside/secret", "/etc/passwd"):
        refused(s3.get_object, "NoSuchKey", 404, Bucket=bucket, Key=key)
    for key in ("data/way/new", "../new", "a//b", "marker/", "data", "data.csv/below", f"{'x' * 256}"):
        refused(s3.put_object, "InvalidArgument", 400, Bucket=bucket, Key=key, Body=b"x")
    s3.put_object(Bucket=bucket, Key="link", Body=b"mine")
    assert (folder / "../outside/secret").read_bytes() == b"secret", "a link is replaced, not followed"
    assert (folder / "link").read_bytes() == b"mine"
    s3.delete_object(Bucket=bucket, Key="data/way/secret")
    assert sorted(path.name for path in (folder / "../outside").iterdir()) == ["secret"]


def test_objects_are_written_into_the_folder(server, s3, folder, tmp_path):
    bucket = add(server, folder)
    put = s3.put_object(Bucket=bucket, Key="new/deep/file", Body=b"content", ContentType="text/x", Metadata={"a": "b"}, Tagging="t=1")
    assert (folder / "new/deep/file").read_bytes() == b"content"
    head = s3.head_object(Bucket=bucket, Key="new/deep/file")
    assert (head["ETag"], head["ContentType"], head["Metadata"]) == (put["ETag"], "text/x", {"a": "b"})
    assert s3.get_object_tagging(Bucket=bucket, Key="new/deep/file")["TagSet"] == [{"Key": "t", "Value": "1"}]
    refused(s3.put_object, "PreconditionFailed", 412, Bucket=bucket, Key="data.csv", Body=b"x", IfNoneMatch="*")
    s3.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": "new/deep/file"})
    assert (folder / "copy").read_bytes() == b"content"
    data = os.urandom(11 * MIB)
    source = tmp_path / "source"
    source.write_bytes(data)
    config = TransferConfig(multipart_threshold=5 * MIB, multipart_chunksize=5 * MIB)
    s3.upload_file(str(source), bucket, "parts", Config=config)
    assert (folder / "parts").read_bytes() == data
    assert s3.head_object(Bucket=bucket, Key="parts")["ETag"].endswith('-3"')
    (folder / "new/deep/file").write_bytes(b"by hand")
    changed = s3.head_object(Bucket=bucket, Key="new/deep/file")
    assert changed["Metadata"] == {} and changed["ETag"] != put["ETag"], "what was said of the old file is not said of the new"
    s3.delete_object(Bucket=bucket, Key="new/deep/file")
    assert not (folder / "new/deep/file").exists() and (folder / "new/deep").is_dir()
    error = refused(s3.put_object, "InvalidRequest", 400, Bucket=bucket, Key="x", Body=b"x", ServerSideEncryption="AES256")
    assert "not encrypted" in error["Error"]["Message"]
    assert not [path for path in folder.rglob(".modelyard*")]


def test_a_folder_can_be_for_reading_alone(server, s3, folder):
    bucket = add(server, folder, "--read-only")
    assert body(s3, bucket, "data/one") == b"one"
    for call, arguments in (
        (s3.put_object, {"Key": "new", "Body": b"x"}),
        (s3.delete_object, {"Key": "data/one"}),
        (s3.create_multipart_upload, {"Key": "new"}),
        (s3.put_object_tagging, {"Key": "data/one", "Tagging": {"TagSet": []}}),
    ):
        refused(call, "AccessDenied", 403, Bucket=bucket, **arguments)
    assert (folder / "data/one").exists() and not (folder / "new").exists()


def test_registrations_come_and_go_and_files_stay(server, s3, folder, other_account):
    bucket = add(server, folder)
    assert str(folder) in server.command("bucket", "list")
    foreign = server.client("s3", other_account["key"], other_account["secret"])
    refused(foreign.list_objects_v2, "AccessDenied", 403, Bucket=bucket)
    refused(s3.delete_bucket, "InvalidRequest", 400, Bucket=bucket)
    server.command("bucket", "remove", bucket)
    refused(s3.list_objects_v2, "NoSuchBucket", 404, Bucket=bucket)
    assert (folder / "data/one").read_bytes() == b"one"
    plain = f"plain-{uuid.uuid4().hex[:12]}"
    s3.create_bucket(Bucket=plain)
    for words, wanted in (
        (("add", plain, "--path", folder), "exists already"),
        (("add", "new-name", "--path", folder / "data.csv"), "is not a folder"),
        (("add", "new-name", "--path", folder / "none"), "No such file"),
        (("add", "new-name", "--path", server.data_dir / "buckets"), "lie within each other"),
        (("add", "New_Name", "--path", folder), "is not a legal bucket name"),
        (("remove", plain), "is no folder"),
    ):
        command = [BINARY, "bucket", *words, "--data-dir", server.data_dir]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 1 and wanted in done.stderr, done.stderr
