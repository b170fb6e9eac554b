"""Uploads in parts through the S3 front."""

import base64
import concurrent.futures
import os

import pytest

from s3_tools import CHECKSUMS, MIB, body, bucket, checksum, refused, s3  # noqa: F401 (fixtures)

PART = 5 * MIB


def begin(s3, bucket, key, **arguments):
    return s3.create_multipart_upload(Bucket=bucket, Key=key, **arguments)["UploadId"]


def put_part(s3, bucket, key, upload, number, data, **arguments):
    part = s3.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=number, Body=data, **arguments)
    return {"PartNumber": number, "ETag": part["ETag"], **{name: part[name] for name in part if name in SUMS}}


SUMS = {f"Checksum{algorithm}" for algorithm in CHECKSUMS}


def complete(s3, bucket, key, upload, parts, **arguments):
    return s3.complete_multipart_upload(
        Bucket=bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": parts}, **arguments
    )


def test_parts_are_read_by_number(s3, bucket):
    data = [os.urandom(PART), os.urandom(PART + 3), b"tail"]
    upload = begin(s3, bucket, "parts")
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        parts = list(pool.map(lambda number: put_part(s3, bucket, "parts", upload, number * 7, data[number - 1]), (1, 2, 3)))
    done = complete(s3, bucket, "parts", upload, parts)
    assert done["ETag"].endswith('-3"') and done["Key"] == "parts" and done["Bucket"] == bucket
    start = 0
    for number, part in enumerate(data, 1):
        got = s3.get_object(Bucket=bucket, Key="parts", PartNumber=number)
        assert got["Body"].read() == part
        total = sum(map(len, data))
        assert got["ContentRange"] == f"bytes {start}-{start + len(part) - 1}/{total}"
        head = s3.head_object(Bucket=bucket, Key="parts", PartNumber=number)
        assert (head["ContentLength"], head["PartsCount"], got["PartsCount"]) == (len(part), 3, 3)
        assert head["ResponseMetadata"]["HTTPStatusCode"] == 206
        start += len(part)
    refused(s3.get_object, "InvalidPartNumber", 416, Bucket=bucket, Key="parts", PartNumber=4)
    refused(s3.get_object, "InvalidArgument", 400, Bucket=bucket, Key="parts", PartNumber=0)
    refused(s3.get_object, "InvalidRequest", 400, Bucket=bucket, Key="parts", PartNumber=1, Range="bytes=0-1")
    assert "PartsCount" not in s3.get_object(Bucket=bucket, Key="parts")
    s3.put_object(Bucket=bucket, Key="whole", Body=b"x")
    got = s3.get_object(Bucket=bucket, Key="whole", PartNumber=1)
    assert (got["Body"].read(), got["ContentRange"]) == (b"x", "bytes 0-0/1") and "PartsCount" not in got
    refused(s3.head_object, "416", 416, Bucket=bucket, Key="whole", PartNumber=2)


def test_the_object_is_as_it_was_until_the_upload_is_complete(s3, bucket):
    s3.put_object(Bucket=bucket, Key="pending", Body=b"old")
    upload = begin(s3, bucket, "pending", ContentType="a/b", Metadata={"k": "v"}, StorageClass="STANDARD_IA")
    part = put_part(s3, bucket, "pending", upload, 1, b"new")
    assert body(s3, bucket, "pending") == b"old"
    first = complete(s3, bucket, "pending", upload, [part])
    head = s3.head_object(Bucket=bucket, Key="pending")
    assert (head["ContentType"], head["Metadata"], head["StorageClass"]) == ("a/b", {"k": "v"}, "STANDARD_IA")
    assert body(s3, bucket, "pending") == b"new"
    again = complete(s3, bucket, "pending", upload, [part])
    assert again["ETag"] == first["ETag"], "a client that lost the answer gets it again"
    s3.put_object(Bucket=bucket, Key="pending", Body=b"newer")
    refused(s3.complete_multipart_upload, "NoSuchUpload", 404, Bucket=bucket, Key="pending", UploadId=upload, MultipartUpload={"Parts": [part]})


def test_completions_that_are_refused(s3, bucket):
    key = "refused"
    upload = begin(s3, bucket, key)
    one, two = (put_part(s3, bucket, key, upload, number, b"small %d" % number) for number in (1, 2))

    def fails(code, parts, **arguments):
        named = {"MultipartUpload": {"Parts": parts}} if parts is not None else {}
        return refused(s3.complete_multipart_upload, code, 400, Bucket=bucket, Key=key, UploadId=upload, **named, **arguments)

    fails("EntityTooSmall", [one, two])
    fails("InvalidPartOrder", [two, one])
    fails("InvalidPart", [{**one, "ETag": two["ETag"]}])
    fails("InvalidPart", [{"PartNumber": 3, "ETag": one["ETag"]}])
    fails("MalformedXML", [])
    fails("InvalidRequest", [one], MpuObjectSize=1)
    refused(s3.upload_part, "InvalidArgument", 400, Bucket=bucket, Key=key, UploadId=upload, PartNumber=0, Body=b"")
    refused(s3.upload_part, "InvalidArgument", 400, Bucket=bucket, Key=key, UploadId=upload, PartNumber=10_001, Body=b"")
    put_part(s3, bucket, key, upload, 10_000, b"")
    s3.put_object(Bucket=bucket, Key=key, Body=b"there")
    refused(
        s3.complete_multipart_upload, "PreconditionFailed", 412, Bucket=bucket, Key=key, UploadId=upload,
        MultipartUpload={"Parts": [one]}, IfNoneMatch="*",
    )
    assert body(s3, bucket, key) == b"there"
    complete(s3, bucket, key, upload, [two], MpuObjectSize=7)
    assert body(s3, bucket, key) == b"small 2"


def test_uploads_that_are_gone(s3, bucket):
    upload = begin(s3, bucket, "gone")
    put_part(s3, bucket, "gone", upload, 1, b"x")
    wrong_key = {"Bucket": bucket, "Key": "other", "UploadId": upload}
    refused(s3.list_parts, "NoSuchUpload", 404, **wrong_key)
    named = {"Bucket": bucket, "Key": "gone", "UploadId": upload}
    assert s3.abort_multipart_upload(**named)["ResponseMetadata"]["HTTPStatusCode"] == 204
    refused(s3.abort_multipart_upload, "NoSuchUpload", 404, **named)
    refused(s3.upload_part, "NoSuchUpload", 404, **named, PartNumber=1, Body=b"x")
    refused(s3.list_parts, "NoSuchUpload", 404, **named)
    refused(s3.upload_part_copy, "NoSuchUpload", 404, **named, PartNumber=1, CopySource=f"{bucket}/gone")
    refused(s3.create_multipart_upload, "NoSuchBucket", 404, Bucket="no-such-bucket-anywhere", Key="k")
    refused(s3.get_object, "NoSuchKey", 404, Bucket=bucket, Key="gone")


@pytest.mark.parametrize("algorithm", CHECKSUMS)
def test_checksums_of_parts(s3, bucket, algorithm):
    data = [b"a" * PART, b"tail"]
    name, key = f"Checksum{algorithm}", f"sums-{algorithm}"
    made = s3.create_multipart_upload(Bucket=bucket, Key=key, ChecksumAlgorithm=algorithm)
    upload, kind = made["UploadId"], made["ChecksumType"]
    assert (made["ChecksumAlgorithm"], kind) == (algorithm, "FULL_OBJECT" if algorithm == "CRC64NVME" else "COMPOSITE")
    sums = [checksum(algorithm, part) for part in data]
    parts = [
        put_part(s3, bucket, key, upload, number, part, **{name: value})
        for number, (part, value) in enumerate(zip(data, sums), 1)
    ]
    assert [part[name] for part in parts] == sums
    part = {"Bucket": bucket, "Key": key, "UploadId": upload, "PartNumber": 2, "Body": b"tail"}
    refused(s3.upload_part, "BadDigest", 400, **part, **{name: sums[0]})
    other = "SHA1" if algorithm != "SHA1" else "SHA256"
    refused(s3.upload_part, "InvalidRequest", 400, **part, **{f"Checksum{other}": checksum(other, b"tail")})
    listed = s3.list_parts(Bucket=bucket, Key=key, UploadId=upload)
    assert [listed["Parts"][0][name], listed["ChecksumAlgorithm"], listed["ChecksumType"]] == [sums[0], algorithm, kind]
    wanted = checksum(algorithm, b"".join(data))
    if kind == "COMPOSITE":
        wanted = checksum(algorithm, b"".join(base64.b64decode(value) for value in sums)) + "-2"
    wrong = [parts[0], {**parts[1], name: sums[0]}]
    named = {"Bucket": bucket, "Key": key, "UploadId": upload}
    refused(s3.complete_multipart_upload, "InvalidPart", 400, **named, MultipartUpload={"Parts": wrong})
    refused(s3.complete_multipart_upload, "BadDigest", 400, **named, MultipartUpload={"Parts": parts}, **{name: sums[0]})
    done = complete(s3, bucket, key, upload, parts, **{name: wanted})
    assert (done[name], done["ChecksumType"]) == (wanted, kind)
    head = s3.head_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED")
    assert (head[name], head["ChecksumType"]) == (wanted, kind)
    copied = s3.copy_object(Bucket=bucket, Key="copy", CopySource=f"{bucket}/{key}")["CopyObjectResult"]
    assert (copied[name], copied["ChecksumType"]) == (checksum(algorithm, b"".join(data)), "FULL_OBJECT")


def test_full_object_checksums(s3, bucket):
    data = [b"a" * PART, b"tail"]
    upload = begin(s3, bucket, "full", ChecksumAlgorithm="CRC32", ChecksumType="FULL_OBJECT")
    parts = [put_part(s3, bucket, "full", upload, number, part) for number, part in enumerate(data, 1)]
    wanted = checksum("CRC32", b"".join(data))
    assert complete(s3, bucket, "full", upload, parts, ChecksumCRC32=wanted, ChecksumType="FULL_OBJECT")["ChecksumCRC32"] == wanted
    for arguments in (
        {"ChecksumAlgorithm": "SHA1", "ChecksumType": "FULL_OBJECT"},
        {"ChecksumAlgorithm": "CRC64NVME", "ChecksumType": "COMPOSITE"},
    ):
        refused(s3.create_multipart_upload, "InvalidRequest", 400, Bucket=bucket, Key="full", **arguments)


def test_parts_are_copied(s3, bucket):
    data = os.urandom(PART + 10)
    s3.put_object(Bucket=bucket, Key="source +", Body=data)
    source = {"Bucket": bucket, "Key": "source +"}
    upload = begin(s3, bucket, "assembled", ChecksumAlgorithm="SHA256")
    named = {"Bucket": bucket, "Key": "assembled", "UploadId": upload}

    def copy(number, **arguments):
        result = s3.upload_part_copy(**named, PartNumber=number, CopySource=source, **arguments)["CopyPartResult"]
        return {"PartNumber": number, "ETag": result["ETag"], "ChecksumSHA256": result["ChecksumSHA256"]}

    parts = [copy(1), copy(2, CopySourceRange=f"bytes=5-{PART + 4}"), copy(3, CopySourceRange="bytes=0-0")]
    assert parts[2]["ChecksumSHA256"] == checksum("SHA256", data[:1])
    for wrong in ("bytes=0-9999999", "bytes=3-2", "bytes=-1", "0-1"):
        refused(s3.upload_part_copy, "InvalidArgument", 400, **named, PartNumber=4, CopySource=source, CopySourceRange=wrong)
    refused(s3.upload_part_copy, "PreconditionFailed", 412, **named, PartNumber=4, CopySource=source, CopySourceIfMatch='"x"')
    refused(s3.upload_part_copy, "NoSuchKey", 404, **named, PartNumber=4, CopySource=f"{bucket}/none")
    complete(s3, **{"bucket": bucket, "key": "assembled", "upload": upload, "parts": parts})
    assert body(s3, bucket, "assembled") == data + data[5 : PART + 5] + data[:1]


def test_lists_of_parts(s3, bucket):
    upload = begin(s3, bucket, "listed")
    for number in (1, 2, 5):
        put_part(s3, bucket, "listed", upload, number, b"x" * number)
    put_part(s3, bucket, "listed", upload, 2, b"replaced")
    named = {"Bucket": bucket, "Key": "listed", "UploadId": upload}
    whole = s3.list_parts(**named)
    assert [(part["PartNumber"], part["Size"]) for part in whole["Parts"]] == [(1, 1), (2, 8), (5, 5)]
    assert whole["IsTruncated"] is False and whole["Owner"] and whole["Initiator"]
    pages = list(s3.get_paginator("list_parts").paginate(**named, PaginationConfig={"PageSize": 2}))
    assert [[part["PartNumber"] for part in page["Parts"]] for page in pages] == [[1, 2], [5]]
    assert [page["IsTruncated"] for page in pages] == [True, False]
    refused(s3.list_parts, "InvalidArgument", 400, **named, MaxParts=-1)


def test_lists_of_uploads(server, s3):
    bucket = "uploads-" + os.urandom(6).hex()
    s3.create_bucket(Bucket=bucket)
    keys = ["a/1", "a/1", "a/2", "b", "c d/1", "c d/2", "e"]
    for key in keys:
        begin(s3, bucket, key)

    def page(**arguments):
        answer = s3.list_multipart_uploads(Bucket=bucket, **arguments)
        uploads = [upload["Key"] for upload in answer.get("Uploads", [])]
        return uploads, [prefix["Prefix"] for prefix in answer.get("CommonPrefixes", [])], answer

    assert page()[0] == keys
    assert page(Prefix="a/")[0] == ["a/1", "a/1", "a/2"]
    assert page(Delimiter="/")[:2] == (["b", "e"], ["a/", "c d/"])
    assert page(Delimiter="/", Prefix="a/")[:2] == (["a/1", "a/1", "a/2"], [])
    assert page(KeyMarker="a/1")[0] == keys[2:]
    pages = s3.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, PaginationConfig={"PageSize": 2})
    assert [[upload["Key"] for upload in found["Uploads"]] for found in pages] == [keys[0:2], keys[2:4], keys[4:6], keys[6:]]
    pages = s3.get_paginator("list_multipart_uploads").paginate(
        Bucket=bucket, Delimiter="/", PaginationConfig={"PageSize": 1}
    )
    found = [(page.get("Uploads", [{}])[0].get("Key") or page["CommonPrefixes"][0]["Prefix"]) for page in pages]
    assert found == ["a/", "b", "c d/", "e"]
    refused(s3.list_multipart_uploads, "InvalidArgument", 400, Bucket=bucket, MaxUploads=-1)
    s3.delete_bucket(Bucket=bucket)
    refused(s3.list_multipart_uploads, "NoSuchBucket", 404, Bucket=bucket)
