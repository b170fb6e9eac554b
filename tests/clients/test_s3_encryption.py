"""Encrypted objects through the real SDK: they read like others, lie unreadable on the disk, and say how they are kept."""

import hashlib
import json
import os
import uuid

import pytest
from boto3.s3.transfer import TransferConfig

from conftest import PYTORCH_INFERENCE, archive
from s3_tools import MIB, body, bucket, refused, s3  # noqa: F401 (fixtures)

MARK = b"find me if you can " * 8


@pytest.fixture(scope="module")
def kms(server):
    return server.client("kms")


@pytest.fixture(scope="module")
def key(kms):
    return kms.create_key()["KeyMetadata"]


def on_disk(server, wanted):
    return any(wanted in path.read_bytes() for path in (server.data_dir / "buckets").rglob("*") if path.is_file())


def kept(answer):
    return (answer.get("ServerSideEncryption"), answer.get("SSEKMSKeyId"), answer.get("BucketKeyEnabled"))


def test_encrypted_objects_read_like_others(server, s3, bucket, key):
    plain = s3.put_object(Bucket=bucket, Key="plain", Body=MARK)
    assert on_disk(server, MARK) and kept(plain) == (None, None, None), "the search finds what lies open"
    s3.delete_object(Bucket=bucket, Key="plain")
    for wish, expected in (
        ({"ServerSideEncryption": "AES256"}, ("AES256", None, None)),
        ({"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": key["KeyId"]}, ("aws:kms", key["Arn"], None)),
        (
            {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": key["Arn"], "BucketKeyEnabled": True},
            ("aws:kms", key["Arn"], True),
        ),
    ):
        put = s3.put_object(Bucket=bucket, Key="sealed", Body=MARK, ChecksumAlgorithm="SHA256", **wish)
        assert kept(put) == expected
        got = s3.get_object(Bucket=bucket, Key="sealed", ChecksumMode="ENABLED")
        assert (got["Body"].read(), kept(got), got["ETag"]) == (MARK, expected, put["ETag"])
        head = s3.head_object(Bucket=bucket, Key="sealed", ChecksumMode="ENABLED")
        assert (kept(head), head["ContentLength"], head["ChecksumSHA256"]) == (expected, len(MARK), put["ChecksumSHA256"])
        is_digest = put["ETag"] == f'"{hashlib.md5(MARK).hexdigest()}"'
        assert is_digest == (expected[0] == "AES256"), "under a key the tag does not tell the content"
        assert not on_disk(server, MARK)


def test_a_key_of_its_own_is_made_where_none_is_named(s3, bucket, kms):
    put = s3.put_object(Bucket=bucket, Key="managed", Body=MARK, ServerSideEncryption="aws:kms")
    managed = kms.describe_key(KeyId="alias/aws/s3")["KeyMetadata"]
    assert (put["SSEKMSKeyId"], managed["KeyManager"]) == (managed["Arn"], "AWS")
    assert body(s3, bucket, "managed") == MARK
    refused(kms.schedule_key_deletion, "AccessDeniedException", 400, KeyId=managed["KeyId"])


def test_ranges_of_any_place(s3, bucket):
    data = os.urandom(3 * 65536 + 1000)
    s3.put_object(Bucket=bucket, Key="ranges", Body=data, ServerSideEncryption="AES256")
    for first, last in ((0, 0), (0, 65535), (65535, 65536), (65536, 131071), (100_000, 190_000), (len(data) - 1, len(data) - 1)):
        got = s3.get_object(Bucket=bucket, Key="ranges", Range=f"bytes={first}-{last}")
        assert got["Body"].read() == data[first : last + 1]
    assert body(s3, bucket, "ranges", Range="bytes=-70000") == data[-70000:]


def test_uploads_in_parts_and_copies(server, s3, bucket, key, tmp_path):
    data = (MARK * (11 * MIB // len(MARK) + 1))[: 11 * MIB + 3]
    source = tmp_path / "source"
    source.write_bytes(data)
    config = TransferConfig(multipart_threshold=5 * MIB, multipart_chunksize=5 * MIB)
    wish = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": key["KeyId"]}
    s3.upload_file(str(source), bucket, "parts", Config=config, ExtraArgs=wish)
    head = s3.head_object(Bucket=bucket, Key="parts")
    assert kept(head) == ("aws:kms", key["Arn"], None) and head["ETag"].endswith('-3"')
    assert body(s3, bucket, "parts") == data
    assert body(s3, bucket, "parts", PartNumber=3) == data[10 * MIB :]
    assert not on_disk(server, MARK)
    upload = s3.create_multipart_upload(Bucket=bucket, Key="copied parts", **wish)
    assert kept(upload) == ("aws:kms", key["Arn"], None)
    part = s3.upload_part_copy(
        Bucket=bucket, Key="copied parts", UploadId=upload["UploadId"], PartNumber=1,
        CopySource={"Bucket": bucket, "Key": "parts"}, CopySourceRange="bytes=1000000-6999999",
    )
    parts = [{"PartNumber": 1, "ETag": part["CopyPartResult"]["ETag"]}]
    done = s3.complete_multipart_upload(
        Bucket=bucket, Key="copied parts", UploadId=upload["UploadId"], MultipartUpload={"Parts": parts}
    )
    assert kept(done) == ("aws:kms", key["Arn"], None)
    assert body(s3, bucket, "copied parts") == data[1_000_000:7_000_000]

    place = {"Bucket": bucket, "CopySource": {"Bucket": bucket, "Key": "parts"}}
    copy = s3.copy_object(Key="sealed copy", ServerSideEncryption="AES256", **place)
    assert kept(copy) == ("AES256", None, None) and body(s3, bucket, "sealed copy") == data
    s3.copy_object(Key="plain copy", **place)
    assert kept(s3.head_object(Bucket=bucket, Key="plain copy")) == (None, None, None)
    assert body(s3, bucket, "plain copy") == data and on_disk(server, MARK)
    s3.copy_object(**{**place, "Key": "plain copy", "CopySource": {"Bucket": bucket, "Key": "plain copy"}}, ServerSideEncryption="AES256")
    assert kept(s3.head_object(Bucket=bucket, Key="plain copy"))[0] == "AES256" and not on_disk(server, MARK)


def test_a_key_that_may_not_be_used_opens_nothing(s3, bucket, kms):
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    wish = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": key}
    s3.put_object(Bucket=bucket, Key="locked", Body=MARK, **wish)
    kms.disable_key(KeyId=key)
    refused(s3.get_object, "KMS.DisabledException", 400, Bucket=bucket, Key="locked")
    refused(s3.put_object, "KMS.DisabledException", 400, Bucket=bucket, Key="more", Body=b"x", **wish)
    assert s3.head_object(Bucket=bucket, Key="locked")["ContentLength"] == len(MARK)
    kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=7)
    refused(s3.get_object, "KMS.KMSInvalidStateException", 400, Bucket=bucket, Key="locked")
    wish["SSEKMSKeyId"] = str(uuid.uuid4())
    refused(s3.put_object, "KMS.NotFoundException", 400, Bucket=bucket, Key="more", Body=b"x", **wish)
    s3.delete_object(Bucket=bucket, Key="locked")


def test_the_bucket_prescribes_what_a_write_leaves_open(server, s3, key):
    name = f"sealed-{uuid.uuid4().hex[:12]}"
    s3.create_bucket(Bucket=name)
    refused(s3.get_bucket_encryption, "ServerSideEncryptionConfigurationNotFoundError", 404, Bucket=name)
    rule = {
        "ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key["KeyId"]},
        "BucketKeyEnabled": True,
    }
    s3.put_bucket_encryption(Bucket=name, ServerSideEncryptionConfiguration={"Rules": [rule]})
    assert s3.get_bucket_encryption(Bucket=name)["ServerSideEncryptionConfiguration"]["Rules"] == [rule]
    assert kept(s3.put_object(Bucket=name, Key="default", Body=MARK)) == ("aws:kms", key["Arn"], True)
    assert kept(s3.put_object(Bucket=name, Key="own", Body=MARK, ServerSideEncryption="AES256")) == ("AES256", None, None)
    s3.delete_bucket_encryption(Bucket=name)
    assert kept(s3.put_object(Bucket=name, Key="plain", Body=b"x")) == (None, None, None)
    assert body(s3, name, "default") == MARK
    for rules in ([], [rule, rule], [{"BucketKeyEnabled": True}]):
        refused(s3.put_bucket_encryption, "MalformedXML", 400, Bucket=name, ServerSideEncryptionConfiguration={"Rules": rules})


def test_wishes_that_are_not_done_are_refused_by_name(s3, bucket):
    for wish, named in (
        ({"ServerSideEncryption": "aws:kms:dsse"}, "aws:kms:dsse"),
        ({"SSECustomerAlgorithm": "AES256", "SSECustomerKey": "k" * 32}, "server-side-encryption-customer"),
    ):
        assert named in refused(s3.put_object, "NotImplemented", 400, Bucket=bucket, Key="x", **wish)["Error"]["Message"]
    refused(s3.put_object, "InvalidArgument", 400, Bucket=bucket, Key="x", ServerSideEncryption="AES256", SSEKMSKeyId="k")
    context = {"ServerSideEncryption": "aws:kms", "SSEKMSEncryptionContext": "not base64"}
    refused(s3.put_object, "InvalidArgument", 400, Bucket=bucket, Key="x", **context)


def test_changes_become_events_where_the_bucket_asks_for_them(server, s3):
    name = f"events-{uuid.uuid4().hex[:12]}"
    s3.create_bucket(Bucket=name)
    s3.put_object(Bucket=name, Key="before", Body=b"x")
    s3.put_bucket_notification_configuration(Bucket=name, NotificationConfiguration={"EventBridgeConfiguration": {}})
    assert s3.get_bucket_notification_configuration(Bucket=name)["EventBridgeConfiguration"] == {}
    put = s3.put_object(Bucket=name, Key="a b", Body=MARK)
    s3.copy_object(Bucket=name, Key="copy", CopySource={"Bucket": name, "Key": "a b"})
    upload = s3.create_multipart_upload(Bucket=name, Key="parts")["UploadId"]
    part = {"Bucket": name, "Key": "parts", "UploadId": upload}
    etag = s3.upload_part(PartNumber=1, Body=MARK, **part)["ETag"]
    s3.complete_multipart_upload(MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]}, **part)
    s3.delete_object(Bucket=name, Key="a b")
    s3.delete_object(Bucket=name, Key="not there")
    s3.put_bucket_notification_configuration(Bucket=name, NotificationConfiguration={})
    s3.put_object(Bucket=name, Key="after", Body=b"x")
    printed = server.command("events", "--output", "json").splitlines()
    events = [event for event in map(json.loads, printed) if event["resources"] == [f"arn:aws:s3:::{name}"]]
    told = [(event["detail-type"], event["detail"]["object"]["key"], event["detail"]["reason"]) for event in events]
    assert told == [
        ("Object Created", "a b", "PutObject"),
        ("Object Created", "copy", "CopyObject"),
        ("Object Created", "parts", "CompleteMultipartUpload"),
        ("Object Deleted", "a b", "DeleteObject"),
    ]
    first, last = events[0], events[-1]
    assert (first["source"], first["region"], first["detail"]["bucket"]) == ("aws.s3", "us-east-1", {"name": name})
    assert (first["detail"]["object"]["size"], f'"{first["detail"]["object"]["etag"]}"') == (len(MARK), put["ETag"])
    assert last["detail"]["deletion-type"] == "Permanently Deleted"
    assert last["detail"]["object"]["sequencer"] > first["detail"]["object"]["sequencer"]
    assert f"s3://{name}/copy  Object Created  CopyObject" in server.command("events")
    topic = {"TopicConfigurations": [{"TopicArn": "arn:aws:sns:us-east-1:123456789012:t", "Events": ["s3:ObjectCreated:*"]}]}
    error = refused(
        s3.put_bucket_notification_configuration, "NotImplemented", 400, Bucket=name, NotificationConfiguration=topic
    )
    assert "TopicConfiguration" in error["Error"]["Message"]


def test_a_model_under_a_key_is_served(s3, bucket, key, kms, endpoints):
    script = """
        import json, os
        def model_fn(model_dir): return json.load(open(os.path.join(model_dir, "weights.json")))
        def predict_fn(data, model): return {"sum": sum(model) + sum(data)}
    """
    packed = archive({"code/inference.py": script, "weights.json": "[1, 2, 3]"})
    s3.put_object(Bucket=bucket, Key="model.tar.gz", Body=packed, ServerSideEncryption="aws:kms", SSEKMSKeyId=key["Arn"])
    endpoints.sagemaker.create_model(
        ModelName="sealed-model",
        ExecutionRoleArn=endpoints.role,
        PrimaryContainer={"Image": PYTORCH_INFERENCE, "ModelDataUrl": f"s3://{bucket}/model.tar.gz"},
    )
    endpoints.config("sealed-model", **{"sealed-model": 1.0})
    endpoints.sagemaker.create_endpoint(EndpointName="sealed-model", EndpointConfigName="sealed-model")
    try:
        assert endpoints.wait("sealed-model")["EndpointStatus"] == "InService"
        assert json.load(endpoints.invoke("sealed-model", "[10]")["Body"]) == {"sum": 16}
    finally:
        endpoints.delete("sealed-model")
    # Without its key it cannot be had any more, and the endpoint says why.
    kms.disable_key(KeyId=key["KeyId"])
    try:
        endpoints.sagemaker.create_endpoint(EndpointName="sealed-off", EndpointConfigName="sealed-model")
        endpoint = endpoints.wait("sealed-off")
        assert endpoint["EndpointStatus"] == "Failed" and "disabled" in endpoint["FailureReason"], endpoint
    finally:
        kms.enable_key(KeyId=key["KeyId"])
        endpoints.delete("sealed-off")
