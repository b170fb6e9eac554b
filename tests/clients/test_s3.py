"""Objects of the S3 front: what is put comes back, under which conditions, checked by which checksum."""

import base64
import concurrent.futures
import datetime
import hashlib
import io
import os

import pytest
from boto3.s3.transfer import TransferConfig
from botocore.config import Config

from s3_tools import CHECKSUMS, MIB, body, bucket, checksum, other_account, refused, s3, send, send_signed_chunks  # noqa: F401 (fixtures)


def test_objects_of_any_size_round_trip(s3, bucket):
    for size in (0, 1, 4096, MIB + 1):
        data = os.urandom(size)
        put = s3.put_object(Bucket=bucket, Key="size", Body=data)
        assert put["ETag"] == f'"{hashlib.md5(data).hexdigest()}"'
        got = s3.get_object(Bucket=bucket, Key="size")
        assert got["Body"].read() == data
        assert (got["ContentLength"], got["ETag"], got["AcceptRanges"]) == (size, put["ETag"], "bytes")
        head = s3.head_object(Bucket=bucket, Key="size")
        assert (head["ContentLength"], head["ETag"]) == (size, put["ETag"])
        assert head["ContentType"] == "binary/octet-stream"


def test_a_put_without_body_is_an_empty_object(s3, bucket):
    s3.put_object(Bucket=bucket, Key="folder/")
    assert body(s3, bucket, "folder/") == b""


def test_the_transfer_manager_round_trips(s3, bucket, tmp_path):
    data = os.urandom(21 * MIB + 7)
    source = tmp_path / "source"
    source.write_bytes(data)
    config = TransferConfig(multipart_threshold=5 * MIB, multipart_chunksize=5 * MIB, max_concurrency=8)
    s3.upload_file(str(source), bucket, "transfer", Config=config, ExtraArgs={"Metadata": {"a": "b"}, "ContentType": "x/y"})
    head = s3.head_object(Bucket=bucket, Key="transfer", ChecksumMode="ENABLED")
    assert head["ETag"].endswith('-5"') and head["ContentLength"] == len(data)
    assert (head["Metadata"], head["ContentType"]) == ({"a": "b"}, "x/y")
    s3.download_file(bucket, "transfer", str(tmp_path / "back"), Config=config)
    assert (tmp_path / "back").read_bytes() == data
    stream = io.BytesIO()
    s3.upload_fileobj(io.BytesIO(data), bucket, "stream", Config=config)
    s3.download_fileobj(bucket, "stream", stream, Config=config)
    assert stream.getvalue() == data
    s3.copy({"Bucket": bucket, "Key": "transfer"}, bucket, "transferred", Config=config)
    assert body(s3, bucket, "transferred") == data


def test_headers_and_metadata_come_back(s3, bucket):
    given = {
        "ContentType": "text/plain; charset=utf-8",
        "CacheControl": "max-age=60, private",
        "ContentDisposition": 'attachment; filename="a b.txt"',
        "ContentEncoding": "gzip",
        "ContentLanguage": "de",
        "WebsiteRedirectLocation": "/other",
        "StorageClass": "STANDARD_IA",
        "Metadata": {"owner": "me", "with-dash": "a, b", "empty": ""},
    }
    expires = datetime.datetime(2030, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc)
    s3.put_object(Bucket=bucket, Key="headers", Body=b"x", Expires=expires, ServerSideEncryption="aws:kms", **given)
    for answer in (s3.head_object(Bucket=bucket, Key="headers"), s3.get_object(Bucket=bucket, Key="headers")):
        assert {name: answer[name] for name in given} == given
        assert answer["ExpiresString"] == "Wed, 02 Jan 2030 03:04:05 GMT"
        assert answer["ServerSideEncryption"] == "aws:kms"
    listed = s3.list_objects_v2(Bucket=bucket, Prefix="headers")["Contents"][0]
    assert listed["StorageClass"] == "STANDARD_IA"


def test_answers_take_headers_from_the_query(s3, bucket):
    s3.put_object(Bucket=bucket, Key="overrides", Body=b"x", ContentType="a/b", CacheControl="none", Expires=datetime.datetime(2030, 1, 1))
    answer = s3.get_object(
        Bucket=bucket, Key="overrides", ResponseContentType="c/d", ResponseCacheControl="all", ResponseContentDisposition="inline",
        ResponseContentEncoding="br", ResponseContentLanguage="fr", ResponseExpires=datetime.datetime(2031, 1, 1),
    )
    names = ("ContentType", "CacheControl", "ContentDisposition", "ContentEncoding", "ContentLanguage")
    assert [answer[name] for name in names] == ["c/d", "all", "inline", "br", "fr"]
    assert answer["ResponseMetadata"]["HTTPHeaders"]["expires"].startswith("Wed, 01 Jan 2031")


def test_what_is_not_honoured_is_refused_by_name(s3, bucket):
    for wish, word in (
        ({"ACL": "public-read"}, "x-amz-acl public-read"),
        ({"GrantRead": "id=1"}, "x-amz-grant-read"),
        ({"StorageClass": "GLACIER"}, "x-amz-storage-class GLACIER"),
        ({"SSECustomerAlgorithm": "AES256", "SSECustomerKey": "k" * 32}, "server-side-encryption-customer"),
    ):
        error = refused(s3.put_object, "NotImplemented", 400, Bucket=bucket, Key="wish", Body=b"x", **wish)
        assert word in error["Error"]["Message"]
        refused(s3.create_multipart_upload, "NotImplemented", 400, Bucket=bucket, Key="wish", **wish)
    refused(s3.put_object, "InvalidStorageClass", Bucket=bucket, Key="wish", StorageClass="FAST")
    refused(s3.put_object, "InvalidEncryptionAlgorithmError", Bucket=bucket, Key="wish", ServerSideEncryption="rot13")
    refused(s3.put_object, "InvalidRequest", Bucket=bucket, Key="wish", ObjectLockLegalHoldStatus="ON")
    refused(s3.put_object, "MetadataTooLarge", Bucket=bucket, Key="wish", Metadata={"a": "x" * 2100})
    refused(s3.put_bucket_acl, "NotImplemented", 400, Bucket=bucket, ACL="private")
    refused(s3.head_object, "404", Bucket=bucket, Key="wish")


def test_ranges(s3, bucket):
    s3.put_object(Bucket=bucket, Key="range", Body=b"0123456789")
    for wanted, part, shown in (
        ("bytes=0-0", b"0", "bytes 0-0/10"),
        ("bytes=2-4", b"234", "bytes 2-4/10"),
        ("bytes=7-", b"789", "bytes 7-9/10"),
        ("bytes=7-999", b"789", "bytes 7-9/10"),
        ("bytes=-3", b"789", "bytes 7-9/10"),
        ("bytes=-999", b"0123456789", "bytes 0-9/10"),
    ):
        got = s3.get_object(Bucket=bucket, Key="range", Range=wanted)
        assert (got["Body"].read(), got["ContentRange"], got["ContentLength"]) == (part, shown, len(part)), wanted
        assert got["ResponseMetadata"]["HTTPStatusCode"] == 206
        head = s3.head_object(Bucket=bucket, Key="range", Range=wanted)
        assert (head["ContentLength"], head["ResponseMetadata"]["HTTPStatusCode"]) == (len(part), 206)
        assert head["ContentRange"] == shown
    for wanted in ("bytes=10-", "bytes=10-20", "bytes=-0"):
        error = refused(s3.get_object, "InvalidRange", 416, Bucket=bucket, Key="range", Range=wanted)
        assert error["ResponseMetadata"]["HTTPHeaders"]["content-range"] == "bytes */10"
        refused(s3.head_object, "416", 416, Bucket=bucket, Key="range", Range=wanted)
    s3.put_object(Bucket=bucket, Key="nothing", Body=b"")
    for wanted in ("bytes=0-", "bytes=-5"):
        refused(s3.get_object, "InvalidRange", 416, Bucket=bucket, Key="nothing", Range=wanted)


def test_conditional_reads(s3, bucket):
    etag = s3.put_object(Bucket=bucket, Key="condition", Body=b"x")["ETag"]
    modified = s3.head_object(Bucket=bucket, Key="condition")["LastModified"]
    hour = datetime.timedelta(hours=1)
    for call, failed in ((s3.get_object, "PreconditionFailed"), (s3.head_object, "412")):
        read = {"Bucket": bucket, "Key": "condition"}
        for holds in (
            {"IfMatch": etag},
            {"IfMatch": "*"},
            {"IfNoneMatch": '"other"'},
            {"IfModifiedSince": modified - hour},
            {"IfUnmodifiedSince": modified},
            {"IfMatch": etag, "IfUnmodifiedSince": modified - hour},
            {"IfNoneMatch": '"other"', "IfModifiedSince": modified + hour},
        ):
            assert call(**read, **holds)["ETag"] == etag, holds
        for fails in ({"IfMatch": '"other"'}, {"IfUnmodifiedSince": modified - hour}):
            refused(call, failed, 412, **read, **fails)
        for unchanged in ({"IfNoneMatch": etag}, {"IfModifiedSince": modified}, {"IfNoneMatch": etag, "IfMatch": etag}):
            error = refused(call, "304", 304, **read, **unchanged)
            assert error["ResponseMetadata"]["HTTPHeaders"]["etag"] == etag


def test_conditional_writes(s3, bucket):
    write = {"Bucket": bucket, "Key": "guarded"}
    refused(s3.put_object, "NoSuchKey", 404, **write, IfMatch='"any"', Body=b"x")
    first = s3.put_object(**write, IfNoneMatch="*", Body=b"one")["ETag"]
    refused(s3.put_object, "PreconditionFailed", 412, **write, IfNoneMatch="*", Body=b"two")
    second = s3.put_object(**write, IfMatch=first, Body=b"two")["ETag"]
    refused(s3.put_object, "PreconditionFailed", 412, **write, IfMatch=first, Body=b"three")
    refused(s3.put_object, "NotImplemented", 400, **write, IfNoneMatch=first, Body=b"three")
    refused(s3.delete_object, "PreconditionFailed", 412, **write, IfMatch=first)
    assert body(s3, bucket, "guarded") == b"two"
    s3.delete_object(**write, IfMatch=second)
    refused(s3.head_object, "404", **write)


def test_one_of_many_conditional_writers_wins(server, s3, bucket):
    client = server.client("s3")

    def write(number):
        try:
            client.put_object(Bucket=bucket, Key="lock", IfNoneMatch="*", Body=b"%d" % number)
            return number
        except client.exceptions.ClientError as error:
            assert error.response["Error"]["Code"] == "PreconditionFailed"

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        winners = [number for number in pool.map(write, range(24)) if number is not None]
    assert len(winners) == 1
    assert body(s3, bucket, "lock") == b"%d" % winners[0]


@pytest.mark.parametrize("algorithm", CHECKSUMS)
def test_checksums_in_headers(s3, bucket, algorithm):
    data = os.urandom(70_000)
    name, value = f"Checksum{algorithm}", checksum(algorithm, data)
    put = s3.put_object(Bucket=bucket, Key="sum", Body=data, **{name: value})
    assert (put[name], put["ChecksumType"]) == (value, "FULL_OBJECT")
    head = s3.head_object(Bucket=bucket, Key="sum", ChecksumMode="ENABLED")
    assert (head[name], head["ChecksumType"]) == (value, "FULL_OBJECT")
    assert name not in s3.head_object(Bucket=bucket, Key="sum")
    got = s3.get_object(Bucket=bucket, Key="sum", ChecksumMode="ENABLED")
    assert (got["Body"].read(), got[name]) == (data, value)
    assert name not in s3.get_object(Bucket=bucket, Key="sum", Range="bytes=0-1", ChecksumMode="ENABLED")
    listed = s3.list_objects_v2(Bucket=bucket, Prefix="sum")["Contents"][0]
    assert listed["ChecksumAlgorithm"] == [algorithm]
    wrong = {name: checksum(algorithm, data + b"x")}
    refused(s3.put_object, "BadDigest", 400, Bucket=bucket, Key="sum", Body=data, **wrong)
    refused(s3.put_object, "InvalidRequest", 400, Bucket=bucket, Key="sum", Body=data, **{name: "c2hvcnQ="})
    assert body(s3, bucket, "sum") == data, "a refused write leaves the object as it was"


@pytest.mark.parametrize("algorithm", CHECKSUMS)
def test_checksums_in_trailers(server, s3, bucket, algorithm):
    data = os.urandom(40_000)
    name = f"x-amz-checksum-{algorithm.lower()}"

    def put(value, trailer=True):
        chunks = [data[:30_000], data[30_000:]]
        stream = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n"
        stream += f"{name}:{value}\r\n".encode() if trailer else b""
        headers = {"Content-Encoding": "aws-chunked", "X-Amz-Decoded-Content-Length": str(len(data)), "X-Amz-Trailer": name}
        return send(server, "PUT", f"/{bucket}/trailer", headers, stream + b"\r\n", hash_header="STREAMING-UNSIGNED-PAYLOAD-TRAILER")

    answer = put(checksum(algorithm, data))
    assert answer.status == 200, answer.body
    head = s3.head_object(Bucket=bucket, Key="trailer", ChecksumMode="ENABLED")
    assert head[f"Checksum{algorithm}"] == checksum(algorithm, data)
    assert "ContentEncoding" not in head, "how the body travelled is no property of the object"
    assert body(s3, bucket, "trailer") == data
    answer = put(checksum(algorithm, data[1:]))
    assert (answer.status, answer.code) == (400, "BadDigest")
    answer = put("", trailer=False)
    assert (answer.status, answer.code) == (400, "MalformedTrailerError")


def test_signed_chunks(server, s3, bucket):
    """What SDKs send that sign each chunk of a stream; a chunk that was changed on the way is refused."""
    data = os.urandom(70_000)
    headers = {"Content-Encoding": "aws-chunked", "X-Amz-Decoded-Content-Length": str(len(data))}
    answer = send_signed_chunks(server, f"/{bucket}/chunks", headers, [data[:65_536], data[65_536:]])
    assert answer.status == 200, answer.body
    assert body(s3, bucket, "chunks") == data
    answer = send_signed_chunks(server, f"/{bucket}/chunks", headers, [data[:65_536], data[65_536:]], forge=1)
    assert (answer.status, answer.code) == (403, "SignatureDoesNotMatch")
    assert body(s3, bucket, "chunks") == data


def test_the_sdk_computes_checksums(server, bucket):
    for algorithm in ("CRC32", "SHA1", "SHA256"):
        s3 = server.client("s3")
        put = s3.put_object(Bucket=bucket, Key="computed", Body=b"data", ChecksumAlgorithm=algorithm)
        assert put[f"Checksum{algorithm}"] == checksum(algorithm, b"data")
        assert s3.get_object(Bucket=bucket, Key="computed", ChecksumMode="ENABLED")["Body"].read() == b"data"


def test_content_md5(s3, bucket):
    digest = lambda data: base64.b64encode(hashlib.md5(data).digest()).decode()  # noqa: E731
    s3.put_object(Bucket=bucket, Key="md5", Body=b"data", ContentMD5=digest(b"data"))
    refused(s3.put_object, "BadDigest", 400, Bucket=bucket, Key="md5", Body=b"data", ContentMD5=digest(b"other"))
    refused(s3.put_object, "InvalidDigest", 400, Bucket=bucket, Key="md5", Body=b"data", ContentMD5="nonsense")


def test_bodies_that_are_not_what_was_signed(server, s3, bucket):
    answer = send(server, "PUT", f"/{bucket}/forged", data=b"evil", sign_as=b"good")
    assert (answer.status, answer.code) == (400, "XAmzContentSHA256Mismatch")
    refused(s3.head_object, "404", Bucket=bucket, Key="forged")
    document = b"<Delete><Object><Key>size</Key></Object></Delete>"
    answer = send(server, "POST", f"/{bucket}?delete=", data=document, sign_as=document.replace(b"size", b"what"))
    assert (answer.status, answer.code) == (400, "XAmzContentSHA256Mismatch")
    answer = send(server, "POST", f"/{bucket}?delete=", data=b"<Delete><Object>")
    assert (answer.status, answer.code) == (400, "MalformedXML")


def test_copies(s3, bucket):
    s3.put_object(Bucket=bucket, Key="from a+b", Body=b"data", ContentType="a/b", Metadata={"k": "v"}, Tagging="t=1", ChecksumSHA256=checksum("SHA256", b"data"))
    source = {"Bucket": bucket, "Key": "from a+b"}
    copied = s3.copy_object(Bucket=bucket, Key="copy", CopySource=source)["CopyObjectResult"]
    head = s3.head_object(Bucket=bucket, Key="copy", ChecksumMode="ENABLED")
    assert (head["ContentType"], head["Metadata"], head["ETag"]) == ("a/b", {"k": "v"}, copied["ETag"])
    assert head["ChecksumSHA256"] == copied["ChecksumSHA256"] == checksum("SHA256", b"data")
    assert s3.get_object_tagging(Bucket=bucket, Key="copy")["TagSet"] == [{"Key": "t", "Value": "1"}]
    s3.copy_object(Bucket=bucket, Key="copy", CopySource=source, MetadataDirective="REPLACE", ContentType="c/d", TaggingDirective="REPLACE", Tagging="u=2", ChecksumAlgorithm="CRC32")
    head = s3.head_object(Bucket=bucket, Key="copy", ChecksumMode="ENABLED")
    assert (head["ContentType"], head["Metadata"]) == ("c/d", {})
    assert head["ChecksumCRC32"] == checksum("CRC32", b"data")
    assert s3.get_object_tagging(Bucket=bucket, Key="copy")["TagSet"] == [{"Key": "u", "Value": "2"}]
    refused(s3.copy_object, "InvalidRequest", 400, Bucket=bucket, Key=source["Key"], CopySource=source)
    s3.copy_object(Bucket=bucket, Key=source["Key"], CopySource=source, MetadataDirective="REPLACE", Metadata={"new": "1"})
    assert s3.head_object(**source)["Metadata"] == {"new": "1"}
    s3.copy_object(Bucket=bucket, Key=source["Key"], CopySource=source, StorageClass="STANDARD_IA")
    head = s3.head_object(**source)
    assert (head["StorageClass"], head["Metadata"]) == ("STANDARD_IA", {"new": "1"})
    assert body(s3, bucket, source["Key"]) == b"data"


def test_copies_under_conditions(s3, bucket, other_account, server):
    etag = s3.put_object(Bucket=bucket, Key="source", Body=b"data")["ETag"]
    copy = {"Bucket": bucket, "Key": "target", "CopySource": f"{bucket}/source"}
    s3.copy_object(**copy, CopySourceIfMatch=etag)
    future = datetime.datetime(2100, 1, 1)
    for fails in ({"CopySourceIfMatch": '"x"'}, {"CopySourceIfNoneMatch": etag}, {"CopySourceIfModifiedSince": future}):
        refused(s3.copy_object, "PreconditionFailed", 412, **copy, **fails)
    refused(s3.copy_object, "AccessDenied", 403, **copy, ExpectedSourceBucketOwner="999999999999")
    refused(s3.copy_object, "NoSuchKey", 404, **{**copy, "CopySource": f"{bucket}/missing"})
    refused(s3.copy_object, "NoSuchBucket", 404, **{**copy, "CopySource": "no-such-bucket-anywhere/x"})
    refused(s3.copy_object, "NoSuchVersion", 404, **{**copy, "CopySource": f"{bucket}/source?versionId=abc"})
    stranger = server.client("s3", other_account["key"], other_account["secret"])
    own = f"own-{other_account['account']}"
    stranger.create_bucket(Bucket=own)
    refused(stranger.copy_object, "AccessDenied", 403, **{**copy, "Bucket": own})


def test_deletions(s3, bucket):
    s3.put_object(Bucket=bucket, Key="gone", Body=b"x")
    refused(s3.delete_object, "InvalidArgument", 400, Bucket=bucket, Key="gone", VersionId="abc")
    assert body(s3, bucket, "gone") == b"x"
    for _ in range(2):
        assert s3.delete_object(Bucket=bucket, Key="gone")["ResponseMetadata"]["HTTPStatusCode"] == 204
    refused(s3.get_object, "NoSuchKey", 404, Bucket=bucket, Key="gone")


def test_many_deletions(s3, bucket):
    keys = [f"many/{number:04} <&>" for number in range(1000)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: s3.put_object(Bucket=bucket, Key=key, Body=b"x"), keys[:60]))
    objects = [{"Key": key} for key in keys]
    refused(s3.delete_objects, "MalformedXML", 400, Bucket=bucket, Delete={"Objects": objects + [{"Key": "more"}]})
    assert len(s3.list_objects_v2(Bucket=bucket, Prefix="many/")["Contents"]) == 60
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": objects})
    assert [deleted["Key"] for deleted in answer["Deleted"]] == keys and "Errors" not in answer
    assert s3.list_objects_v2(Bucket=bucket, Prefix="many/")["KeyCount"] == 0
    s3.put_object(Bucket=bucket, Key="spared", Body=b"x")
    answer = s3.delete_objects(
        Bucket=bucket, Delete={"Quiet": True, "Objects": [{"Key": "missing"}, {"Key": "spared", "ETag": '"other"'}]}
    )
    assert "Deleted" not in answer
    assert [(error["Key"], error["Code"]) for error in answer["Errors"]] == [("spared", "PreconditionFailed")]
    assert body(s3, bucket, "spared") == b"x"
    refused(s3.delete_objects, "NoSuchBucket", 404, Bucket="no-such-bucket-anywhere", Delete={"Objects": [{"Key": "a"}]})


def test_object_tags(s3, bucket):
    tags = [{"Key": "a", "Value": "1"}, {"Key": "b", "Value": ""}]
    s3.put_object(Bucket=bucket, Key="tagged", Body=b"x", Tagging="a=1&b=")
    assert s3.get_object_tagging(Bucket=bucket, Key="tagged")["TagSet"] == tags
    assert s3.get_object(Bucket=bucket, Key="tagged")["TagCount"] == 2
    before = s3.head_object(Bucket=bucket, Key="tagged")
    s3.put_object_tagging(Bucket=bucket, Key="tagged", Tagging={"TagSet": [{"Key": "c", "Value": "ä b"}]})
    assert s3.get_object_tagging(Bucket=bucket, Key="tagged")["TagSet"] == [{"Key": "c", "Value": "ä b"}]
    after = s3.head_object(Bucket=bucket, Key="tagged")
    assert (after["ETag"], after["LastModified"]) == (before["ETag"], before["LastModified"])
    s3.delete_object_tagging(Bucket=bucket, Key="tagged")
    assert s3.get_object_tagging(Bucket=bucket, Key="tagged")["TagSet"] == []
    assert "TagCount" not in s3.get_object(Bucket=bucket, Key="tagged")
    upload = s3.create_multipart_upload(Bucket=bucket, Key="tagged", Tagging="p=q")["UploadId"]
    part = s3.upload_part(Bucket=bucket, Key="tagged", UploadId=upload, PartNumber=1, Body=b"x")
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    s3.complete_multipart_upload(Bucket=bucket, Key="tagged", UploadId=upload, MultipartUpload=parts)
    assert s3.get_object_tagging(Bucket=bucket, Key="tagged")["TagSet"] == [{"Key": "p", "Value": "q"}]
    eleven = [{"Key": f"k{number}", "Value": "v"} for number in range(11)]
    for wrong, code in (
        (eleven, "BadRequest"),
        ([{"Key": "a", "Value": "1"}, {"Key": "a", "Value": "2"}], "InvalidTag"),
        ([{"Key": "aws:a", "Value": "1"}], "InvalidTag"),
        ([{"Key": "a" * 129, "Value": "1"}], "InvalidTag"),
    ):
        refused(s3.put_object_tagging, code, 400, Bucket=bucket, Key="tagged", Tagging={"TagSet": wrong})
    refused(s3.put_object, "InvalidArgument", 400, Bucket=bucket, Key="tagged", Tagging="a=1&a=2")
    refused(s3.get_object_tagging, "NoSuchKey", 404, Bucket=bucket, Key="missing")


def test_a_body_of_unknown_length(server, bucket):
    """The SDK sends a stream whose length it cannot ask for in signed chunks when it may not read it twice."""

    class Stream(io.RawIOBase):
        def __init__(self):
            self.left = 3 * MIB

        def readable(self):
            return True

        def read(self, size=-1):
            size = min(self.left, size if size >= 0 else self.left)
            self.left -= size
            return b"s" * size

    s3 = server.client("s3")
    s3.upload_fileobj(Stream(), bucket, "unknown", Config=TransferConfig(use_threads=False))
    assert s3.head_object(Bucket=bucket, Key="unknown")["ContentLength"] == 3 * MIB


def test_virtual_names_and_payload_signing(server, bucket):
    """Settings of clients in use: path style by force, signed payloads, no checksums unless asked for."""
    connection = server.connection
    import boto3

    for settings in ({"s3": {"addressing_style": "path", "payload_signing_enabled": True}}, {"request_checksum_calculation": "when_required"}):
        s3 = boto3.client(
            "s3", endpoint_url=server.endpoint, region_name="us-east-1", aws_access_key_id=connection["access_key_id"],
            aws_secret_access_key=connection["secret_access_key"], config=Config(retries={"max_attempts": 0}, **settings),
        )
        s3.put_object(Bucket=bucket, Key="settings", Body=b"x" * 100)
        assert body(s3, bucket, "settings") == b"x" * 100
