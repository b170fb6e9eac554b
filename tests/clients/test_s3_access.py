"""Who may call the S3 front, whose buckets they see, and what hostile names and requests come to."""

import datetime
import json
import os
import subprocess
import sys
import unicodedata
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from urllib.parse import parse_qs, urlsplit, urlunsplit

import boto3
import pytest
from botocore.config import Config

from conftest import poll
from s3_tools import body, bucket, other_account, refused, s3, send, send_unsigned  # noqa: F401 (fixtures)

AWS = Path(sys.executable).parent / "aws"


def client(server, key=None, secret=None, **settings):
    connection = server.connection
    return boto3.client(
        "s3", endpoint_url=server.endpoint, region_name="us-east-1",
        aws_access_key_id=key or connection["access_key_id"],
        aws_secret_access_key=secret or connection["secret_access_key"],
        config=Config(retries={"max_attempts": 0}, **settings),
    )


def fetch(url, method="GET", data=None, headers=None):
    """Status, body and code of the error, as any HTTP client gets them."""
    request = urllib.request.Request(url, method=method, data=data, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read(), ""
    except urllib.error.HTTPError as error:
        text = error.read()
        return error.code, text, text.decode().partition("<Code>")[2].partition("</Code>")[0]


def tampered(url, **changes):
    split = urlsplit(url)
    query = {name: values[0] for name, values in parse_qs(split.query).items()}
    query.update(changes)
    return urlunsplit(split._replace(query=urllib.parse.urlencode(query)))


@pytest.mark.parametrize("version", ["s3v4", "s3"])
def test_presigned_urls(server, s3, bucket, version):
    s3.put_object(Bucket=bucket, Key="a b+c/ü.txt", Body=b"data")
    signer = client(server, signature_version=version)

    def url(operation, key, seconds=60, **arguments):
        return signer.generate_presigned_url(operation, Params={"Bucket": bucket, "Key": key, **arguments}, ExpiresIn=seconds)

    read = url("get_object", "a b+c/ü.txt")
    assert ("X-Amz-Signature" in read) == (version == "s3v4") and ("AWSAccessKeyId" in read) == (version == "s3")
    assert fetch(read)[:2] == (200, b"data")
    assert fetch(url("head_object", "a b+c/ü.txt"), "HEAD")[:2] == (200, b"")
    shown = url("get_object", "a b+c/ü.txt", ResponseContentType="x/y")
    with urllib.request.urlopen(shown, timeout=30) as answer:
        assert answer.headers["content-type"] == "x/y"
    write = url("put_object", "written")
    assert fetch(write, "PUT", b"by url", {"Content-Type": ""})[0] == 200
    assert body(s3, bucket, "written") == b"by url"
    assert fetch(url("delete_object", "written"), "DELETE")[0] == 204
    assert fetch(url("get_object", "written"))[::2] == (404, "NoSuchKey")

    assert fetch(url("get_object", "a b+c/ü.txt", seconds=-5))[0] in (400, 403)
    assert fetch(read, "PUT", b"x")[::2] == (403, "SignatureDoesNotMatch")
    assert fetch(read.replace("%C3%BC.txt", "other"))[::2] == (403, "SignatureDoesNotMatch")
    if version == "s3v4":
        changes = {"X-Amz-Expires": "600"}, {"X-Amz-Signature": "0" * 64}
    else:
        changes = {"Expires": "2000000000"}, {"Signature": "AAAAAAAAAAAAAAAAAAAAAAAAAAA="}
    for change in changes:
        assert fetch(tampered(read, **change))[::2] == (403, "SignatureDoesNotMatch"), change
    stranger = client(server, "AKIAUNKNOWNUNKNOWN00", "secret", signature_version=version)
    unknown = stranger.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "x"})
    assert fetch(unknown)[::2] == (403, "InvalidAccessKeyId")


def test_expired_urls(server, bucket):
    from botocore.auth import HmacV1QueryAuth, S3SigV4QueryAuth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    keys = Credentials(server.connection["access_key_id"], server.connection["secret_access_key"])
    request = AWSRequest("GET", f"{server.endpoint}/{bucket}/x")
    signer = S3SigV4QueryAuth(keys, "s3", "us-east-1", expires=1)

    old = (datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(hours=1)).strftime("%Y%m%dT%H%M%SZ")
    request.context["timestamp"] = old
    signer._modify_request_before_signing(request)
    signature = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
    answer = fetch(f"{request.url}&X-Amz-Signature={signature}")
    assert answer[::2] == (403, "AccessDenied") and b"expired" in answer[1]

    request = AWSRequest("GET", f"{server.endpoint}/{bucket}/x")
    HmacV1QueryAuth(keys, expires=-10).add_auth(request)
    answer = fetch(request.url)
    assert answer[::2] == (403, "AccessDenied") and b"expired" in answer[1]


def test_requests_that_are_not_signed_as_they_must_be(server, s3, bucket):
    for method, target in (("GET", "/"), ("GET", f"/{bucket}"), ("PUT", f"/{bucket}/x"), ("GET", f"/{bucket}/x"), ("DELETE", f"/{bucket}")):
        answer = send_unsigned(server, method, target)
        assert (answer.status, answer.code) == (403, "AccessDenied"), (method, target, answer.body)
    refused(client(server, "AKIAUNKNOWNUNKNOWN00", "s").list_buckets, "InvalidAccessKeyId", 403)
    refused(client(server, None, "wrong").list_buckets, "SignatureDoesNotMatch", 403)
    refused(client(server, None, "wrong").put_object, "SignatureDoesNotMatch", 403, Bucket=bucket, Key="x", Body=b"x" * 10**6)
    refused(client(server, None, "wrong").head_object, "403", 403, Bucket=bucket, Key="x")


def test_clocks_that_are_wrong(server, bucket):
    past = (datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(minutes=20)).strftime("%Y%m%dT%H%M%SZ")
    import hashlib

    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    keys = Credentials(server.connection["access_key_id"], server.connection["secret_access_key"])
    signer = S3SigV4Auth(keys, "s3", "us-east-1")
    request = AWSRequest("GET", f"{server.endpoint}/{bucket}")
    request.headers["X-Amz-Content-SHA256"] = hashlib.sha256(b"").hexdigest()
    request.headers["X-Amz-Date"] = past
    request.context["timestamp"] = past
    signature = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
    signer._inject_signature_to_request(request, signature)
    answer = send_unsigned(server, "GET", f"/{bucket}", dict(request.headers))
    assert (answer.status, answer.code) == (403, "RequestTimeTooSkewed")


def test_two_accounts_see_only_their_own(server, s3, bucket, other_account):
    other = client(server, other_account["key"], other_account["secret"])
    s3.put_object(Bucket=bucket, Key="same/key", Body=b"first")
    refused(other.create_bucket, "BucketAlreadyExists", 409, Bucket=bucket)
    upload = s3.create_multipart_upload(Bucket=bucket, Key="same/upload")["UploadId"]
    foreign = {"Bucket": bucket, "Key": "same/key"}
    for call, arguments in (
        (other.get_object, foreign),
        (other.put_object, {**foreign, "Body": b"x"}),
        (other.delete_object, foreign),
        (other.list_objects_v2, {"Bucket": bucket}),
        (other.list_multipart_uploads, {"Bucket": bucket}),
        (other.delete_objects, {"Bucket": bucket, "Delete": {"Objects": [{"Key": "same/key"}]}}),
        (other.delete_bucket, {"Bucket": bucket}),
        (other.get_bucket_policy, {"Bucket": bucket}),
        (other.get_object_tagging, foreign),
        (other.upload_part, {"Bucket": bucket, "Key": "same/upload", "UploadId": upload, "PartNumber": 1, "Body": b"x"}),
        (other.abort_multipart_upload, {"Bucket": bucket, "Key": "same/upload", "UploadId": upload}),
    ):
        refused(call, "AccessDenied", 403, **arguments)
    refused(other.head_bucket, "403", 403, Bucket=bucket)
    refused(other.head_object, "403", 403, **foreign)
    assert bucket not in [entry["Name"] for entry in other.list_buckets()["Buckets"]]
    own = f"own-{os.urandom(6).hex()}"
    other.create_bucket(Bucket=own)
    other.put_object(Bucket=own, Key="same/key", Body=b"second")
    refused(other.list_parts, "NoSuchUpload", 404, Bucket=own, Key="same/upload", UploadId=upload)
    assert (body(s3, bucket, "same/key"), body(other, own, "same/key")) == (b"first", b"second")
    assert own not in [entry["Name"] for entry in s3.list_buckets()["Buckets"]]
    owner = server.connection["account"]
    assert body(s3, bucket, "same/key", ExpectedBucketOwner=owner) == b"first"
    refused(s3.get_object, "AccessDenied", 403, **foreign, ExpectedBucketOwner=other_account["account"])
    refused(s3.head_bucket, "403", 403, Bucket=bucket, ExpectedBucketOwner=other_account["account"])


def test_buckets(server, s3):
    name = "bucket-" + os.urandom(6).hex()
    made = s3.create_bucket(Bucket=name)
    assert made["Location"] == f"/{name}"
    s3.create_bucket(Bucket=name)
    west = server.client("s3", region="us-west-2")
    constraint = {"LocationConstraint": "us-west-2"}
    refused(west.create_bucket, "BucketAlreadyOwnedByYou", 409, Bucket=name, CreateBucketConfiguration=constraint)
    assert s3.get_bucket_location(Bucket=name)["LocationConstraint"] is None
    west.create_bucket(Bucket=name + "-west", CreateBucketConfiguration=constraint)
    assert s3.get_bucket_location(Bucket=name + "-west")["LocationConstraint"] == "us-west-2"
    assert s3.head_bucket(Bucket=name + "-west")["BucketRegion"] == "us-west-2"
    assert "Status" not in s3.get_bucket_versioning(Bucket=name)
    s3.put_object(Bucket=name, Key="x", Body=b"x")
    refused(s3.delete_bucket, "BucketNotEmpty", 409, Bucket=name)
    s3.delete_object(Bucket=name, Key="x")
    s3.create_multipart_upload(Bucket=name, Key="left")
    assert s3.delete_bucket(Bucket=name)["ResponseMetadata"]["HTTPStatusCode"] == 204
    for call in (s3.delete_bucket, s3.list_objects_v2, s3.get_bucket_location, s3.get_bucket_policy):
        refused(call, "NoSuchBucket", 404, Bucket=name)
    refused(s3.put_object, "NoSuchBucket", 404, Bucket=name, Key="x", Body=b"x" * 10**6)
    head = send(server, "HEAD", f"/{name}")
    assert (head.status, head.body) == (404, b"")
    error = refused(s3.head_bucket, "404", 404, Bucket=name)
    assert error["Error"]["Message"] == "Not Found"
    for wish in ({"ObjectLockEnabledForBucket": True}, {"ACL": "public-read"}, {"ObjectOwnership": "ObjectWriter"}):
        refused(s3.create_bucket, "NotImplemented", 400, Bucket=name, **wish)


@pytest.mark.parametrize("name", ["ab", "Upper", "under_score", "-dash", "dash-", "a..b", "192.168.0.1", "x" * 64, "..", ".", "%2e%2e", "a%00b", "%2e%2e%2fetc", "a b"])
def test_hostile_bucket_names(server, name):
    target = "/" + name.replace(" ", "%20")
    for method in ("PUT", "GET", "DELETE"):
        answer = send(server, method, target)
        assert 400 <= answer.status < 500, (method, answer.status, answer.body)
        assert answer.code in ("InvalidBucketName", "InvalidURI"), (method, answer.body)
    assert 400 <= send(server, "HEAD", target).status < 500


HOSTILE = [
    "..", "../escape", "a/../b", "/absolute", "//", "///a", "a//b", ".", "./a", "a/.", "a/..", "%2e%2e/x", "%2E", "%00", "%", "nul\0byte",
    "new\nline", "return\rtab\t", "back\\slash", ".incoming/x", ".incoming", "a@0123456789abcdef0123456789abcdef", "quote'\"<&>", "?query=1#frag",
    "emoji🦀", unicodedata.normalize("NFC", "é"), unicodedata.normalize("NFD", "é"), "Case", "case", "CASE", "a", "a/b", "a/b/c", "a/", "x" * 1024,
    "é" * 512, "/" * 1024, "long/" + "y" * 300, " ", "+", "~", "con", "\u202egnp.exe", "trailing.", "trailing ",
]


def test_hostile_keys_round_trip_and_none_meets_another(server, s3, bucket):
    canary = server.data_dir.parent / "canary"
    canary.write_text("alive")
    before = set(server.data_dir.parent.rglob("escape*"))
    for number, key in enumerate(HOSTILE):
        s3.put_object(Bucket=bucket, Key=key, Body=b"%d" % number, Metadata={"number": str(number)})
    for number, key in enumerate(HOSTILE):
        assert body(s3, bucket, key) == b"%d" % number, key
        assert s3.head_object(Bucket=bucket, Key=key)["Metadata"] == {"number": str(number)}, key
    listed = []
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, PaginationConfig={"PageSize": 7}):
        listed += [entry["Key"] for entry in page["Contents"]]
    assert set(HOSTILE) <= set(listed)
    folder = server.data_dir / "buckets" / bucket
    found = [os.path.join(at, name) for at, _, names in os.walk(folder) for name in names]
    assert len(found) == len(listed), "each object is one file in the folder of its bucket"
    assert canary.read_text() == "alive"
    new = set(server.data_dir.parent.rglob("escape*")) - before
    assert not [path for path in new if folder not in path.parents]
    for key in HOSTILE:
        copied = s3.copy_object(Bucket=bucket, Key="copy of hostile", CopySource={"Bucket": bucket, "Key": key})
        assert copied["CopyObjectResult"]["ETag"] == s3.head_object(Bucket=bucket, Key=key)["ETag"], key
    for key in HOSTILE[:-1]:
        s3.delete_object(Bucket=bucket, Key=key)
    assert body(s3, bucket, HOSTILE[-1]) == b"%d" % (len(HOSTILE) - 1)
    refused(s3.put_object, "KeyTooLongError", 400, Bucket=bucket, Key="x" * 1025, Body=b"x")
    refused(s3.create_multipart_upload, "KeyTooLongError", 400, Bucket=bucket, Key="é" * 513)


def test_requests_that_make_no_sense(server, bucket):
    for method, target, data in (
        ("GET", f"/{bucket}/%ff%fe", b""),
        ("GET", f"/{bucket}/%zz", b""),
        ("POST", f"/{bucket}?delete=", b""),
        ("POST", f"/{bucket}?delete=", b"<Delete/>"),
        ("POST", f"/{bucket}?delete=", b"\0\xff"),
        ("POST", f"/{bucket}/x?uploadId=u", b"<no"),
        ("POST", f"/{bucket}/x", b""),
        ("PUT", f"/{bucket}/x?partNumber=one&uploadId=u", b"x"),
        ("PUT", f"/{bucket}/x?partNumber=1&uploadId=../../x", b"x"),
        ("PUT", f"/{bucket}?tagging=", b"<Tagging>"),
        ("PUT", f"/{bucket}?policy=", b"\xff"),
        ("GET", f"/{bucket}?list-type=2&continuation-token=%00", b""),
        ("GET", f"/{bucket}?nonsense=1&uploads=&versions=", b""),
        ("PATCH", f"/{bucket}/x", b""),
        ("PUT", f"/{bucket}/x?acl=", b"<AccessControlPolicy/>"),
        ("GET", f"/{bucket}?versioning=&location=", b""),
    ):
        answer = send(server, method, target, data=data)
        assert answer.status < 500, (method, target, answer.status, answer.body)
    for headers in (
        {"Range": "bytes=a-b"}, {"Range": "bytes=0-1,3-4"}, {"If-Modified-Since": "yesterday"}, {"x-amz-copy-source": "x"},
        {"x-amz-checksum-crc32": "!"}, {"Content-MD5": "!"}, {"x-amz-tagging": "%ff=1"}, {"If-Match": "\"unclosed"},
        {"x-amz-decoded-content-length": "-1"}, {"x-amz-sdk-checksum-algorithm": "MD4"}, {"Expires": "never"},
    ):
        for method in ("GET", "PUT"):
            answer = send(server, method, f"/{bucket}/sense", headers)
            assert answer.status < 500, (method, headers, answer.status, answer.body)
    answer = send(server, "GET", f"/{bucket}?cors=")
    assert (answer.status, answer.code) == (400, "NotImplemented") and b"GetBucketCors" in answer.body


def test_bucket_policies_and_tags(s3, bucket):
    refused(s3.get_bucket_policy, "NoSuchBucketPolicy", 404, Bucket=bucket)
    policy = json.dumps({
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{bucket}/*"}],
    })
    assert s3.put_bucket_policy(Bucket=bucket, Policy=policy)["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert s3.get_bucket_policy(Bucket=bucket)["Policy"] == policy
    refused(s3.put_bucket_policy, "MalformedPolicy", 400, Bucket=bucket, Policy="{}")
    refused(s3.put_bucket_policy, "MalformedPolicy", 400, Bucket=bucket, Policy=policy.replace(bucket, "other-bucket"))
    assert s3.get_bucket_policy(Bucket=bucket)["Policy"] == policy
    s3.delete_bucket_policy(Bucket=bucket)
    refused(s3.get_bucket_policy, "NoSuchBucketPolicy", 404, Bucket=bucket)
    refused(s3.put_bucket_policy, "NoSuchBucket", 404, Bucket="no-such-bucket-anywhere", Policy=policy)

    refused(s3.get_bucket_tagging, "NoSuchTagSet", 404, Bucket=bucket)
    tags = [{"Key": "cost", "Value": "1"}, {"Key": "team", "Value": "red"}]
    s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": tags})
    assert s3.get_bucket_tagging(Bucket=bucket)["TagSet"] == tags
    refused(s3.put_bucket_tagging, "InvalidTag", 400, Bucket=bucket, Tagging={"TagSet": tags + tags})
    s3.delete_bucket_tagging(Bucket=bucket)
    refused(s3.get_bucket_tagging, "NoSuchTagSet", 404, Bucket=bucket)


def test_lifecycle_rules_act(s3):
    bucket = "life-" + os.urandom(6).hex()
    s3.create_bucket(Bucket=bucket)
    refused(s3.get_bucket_lifecycle_configuration, "NoSuchLifecycleConfiguration", 404, Bucket=bucket)
    for key in ("old/1", "old/2", "kept"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")

    def put(**rule):
        rule = {"ID": "rule", "Status": "Enabled", "Filter": {"Prefix": "old/"}, **rule}
        rule = {name: value for name, value in rule.items() if value is not None}
        return {"Bucket": bucket, "LifecycleConfiguration": {"Rules": [rule]}}

    past = datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)
    call = s3.put_bucket_lifecycle_configuration
    for code, wrong in (
        ("InvalidArgument", put(Expiration={"Days": 0})),
        ("InvalidArgument", put(Expiration={"Date": past + datetime.timedelta(hours=1)})),
        ("MalformedXML", put(Expiration={"Days": 1, "Date": past})),
        ("MalformedXML", put(Expiration={"Days": 1}, Filter=None)),
        ("MalformedXML", put(Expiration={"Days": 1}, Prefix="old/")),
        ("MalformedXML", put(Expiration={"Days": 1}, Status="Perhaps")),
        ("InvalidRequest", put()),
        ("NotImplemented", put(Transitions=[{"Days": 1, "StorageClass": "GLACIER"}])),
        ("NotImplemented", put(NoncurrentVersionExpiration={"NoncurrentDays": 1})),
        ("NotImplemented", put(Expiration={"ExpiredObjectDeleteMarker": True})),
        ("InvalidArgument", put(AbortIncompleteMultipartUpload={"DaysAfterInitiation": 0})),
    ):
        refused(call, code, 400, **wrong)
    call(**put(Expiration={"Days": 30}, AbortIncompleteMultipartUpload={"DaysAfterInitiation": 7}))
    shown = s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    assert shown == [{
        "ID": "rule", "Status": "Enabled", "Filter": {"Prefix": "old/"}, "Expiration": {"Days": 30},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
    }]
    call(**put(Expiration={"Date": past}))
    left = lambda: [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]]  # noqa: E731
    poll(lambda: left() == ["kept"], "what has expired is gone", seconds=30)
    s3.delete_bucket_lifecycle(Bucket=bucket)
    refused(s3.get_bucket_lifecycle_configuration, "NoSuchLifecycleConfiguration", 404, Bucket=bucket)


def test_the_command_line(server, tmp_path):
    """What `aws s3` does beyond the round trip of test_commands.py."""
    name = "cli-" + os.urandom(6).hex()
    environment = {**server.environment(), "AWS_PAGER": ""}

    def aws(*words, fails=False, **options):
        done = subprocess.run([AWS, "s3", *words], env=environment, capture_output=True, text=True, timeout=120, **options)
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return done.stderr if fails else done.stdout

    (tmp_path / "deep").mkdir()
    for path in ("a b.txt", "deep/ü+&.txt", "empty"):
        (tmp_path / path).write_text(path)
    aws("mb", f"s3://{name}")
    aws("sync", str(tmp_path), f"s3://{name}/x")
    (tmp_path / "empty").unlink()
    changed = aws("sync", "--delete", str(tmp_path), f"s3://{name}/x")
    assert changed.strip() == f"delete: s3://{name}/x/empty", "nothing else has changed"
    aws("mv", f"s3://{name}/x/a b.txt", f"s3://{name}/moved")
    aws("cp", "-", f"s3://{name}/piped", input="from a pipe")
    assert aws("cp", f"s3://{name}/piped", "-") == "from a pipe"
    listed = aws("ls", "--recursive", f"s3://{name}")
    assert [line.split(maxsplit=3)[3] for line in listed.splitlines()] == ["moved", "piped", "x/deep/ü+&.txt"]
    url = aws("presign", f"s3://{name}/moved", "--expires-in", "60").strip()
    assert fetch(url)[:2] == (200, b"a b.txt")
    assert "BucketNotEmpty" in aws("rb", f"s3://{name}", fails=True)
    aws("rb", "--force", f"s3://{name}")


def test_what_was_acknowledged_survives_a_kill(own_server):
    s3 = own_server.client("s3")
    s3.create_bucket(Bucket="killed")
    upload = s3.create_multipart_upload(Bucket="killed", Key="big")["UploadId"]
    part = s3.upload_part(Bucket="killed", Key="big", UploadId=upload, PartNumber=1, Body=b"part")
    s3.put_object(Bucket="killed", Key="whole", Body=b"whole", Tagging="a=b")
    # A write that is cut off in the middle of its body.
    import http.client

    split = urlsplit(s3.generate_presigned_url("put_object", Params={"Bucket": "killed", "Key": "whole"}))
    link = http.client.HTTPConnection(split.hostname, split.port, timeout=30)
    link.putrequest("PUT", f"{split.path}?{split.query}")
    link.putheader("Content-Length", "1000000")
    link.endheaders(b"h" * 500_000)
    own_server.kill()
    link.close()
    own_server.start()
    assert body(s3, "killed", "whole") == b"whole"
    assert s3.get_object_tagging(Bucket="killed", Key="whole")["TagSet"] == [{"Key": "a", "Value": "b"}]
    named = {"Bucket": "killed", "Key": "big", "UploadId": upload}
    s3.complete_multipart_upload(**named, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]})
    assert body(s3, "killed", "big") == b"part"
    files = [path for path in (own_server.data_dir / "buckets/killed").rglob("*") if path.is_file()]
    assert len(files) == 2, files
    assert all(path.stat().st_mode & 0o077 == 0 for path in files)
