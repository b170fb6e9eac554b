"""Lists of the S3 front, in both versions."""

import concurrent.futures
import os

import pytest

from s3_tools import refused, s3, send  # noqa: F401 (fixtures)

KEYS = ["a", "a/1", "a/2", "a/b/3", "a0", "b c/1", "b+c/1", "d%2F", "d&<>\"'", "e\u0301", "e\n", "z/", "é", "日本/本"]


@pytest.fixture(scope="module")
def bucket(s3):
    name = "list-" + os.urandom(6).hex()
    s3.create_bucket(Bucket=name)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: s3.put_object(Bucket=name, Key=key, Body=b"x"), KEYS))
    return name


def keys(answer):
    return [entry["Key"] for entry in answer.get("Contents", [])]


def prefixes(answer):
    return [entry["Prefix"] for entry in answer.get("CommonPrefixes", [])]


def ordered(wanted):
    return sorted(wanted, key=str.encode)


def test_both_versions_list_in_the_order_of_bytes(s3, bucket):
    for answer in (s3.list_objects(Bucket=bucket), s3.list_objects_v2(Bucket=bucket)):
        assert keys(answer) == ordered(KEYS)
        assert (answer["IsTruncated"], answer["Name"], answer["MaxKeys"]) == (False, bucket, 1000)
    second = s3.list_objects_v2(Bucket=bucket, FetchOwner=True)
    assert second["KeyCount"] == len(KEYS) and second["Contents"][0]["Owner"]["ID"]
    assert "Owner" not in s3.list_objects_v2(Bucket=bucket)["Contents"][0]
    entry = second["Contents"][0]
    assert (entry["Size"], entry["StorageClass"]) == (1, "STANDARD") and entry["ETag"] and entry["LastModified"]


@pytest.mark.parametrize("name", ["list_objects", "list_objects_v2"])
def test_prefixes_and_delimiters(s3, bucket, name):
    call = getattr(s3, name)
    for prefix, delimiter, wanted, folded in (
        ("", "/", ["a", "a0", "d%2F", "d&<>\"'", "e\u0301", "e\n", "é"], ["a/", "b c/", "b+c/", "z/", "日本/"]),
        ("a", "/", ["a", "a0"], ["a/"]),
        ("a/", "/", ["a/1", "a/2"], ["a/b/"]),
        ("z/", "/", ["z/"], []),
        ("", "本", ordered(set(KEYS) - {"日本/本"}), ["日本"]),
        ("nothing", "/", [], []),
    ):
        answer = call(Bucket=bucket, Prefix=prefix, Delimiter=delimiter)
        assert (keys(answer), prefixes(answer)) == (ordered(wanted), folded), (prefix, delimiter)
        assert answer.get("Prefix", "") == prefix and answer["Delimiter"] == delimiter


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_pages_are_complete_and_do_not_overlap(s3, bucket, size):
    for name in ("list_objects", "list_objects_v2"):
        for arguments in ({}, {"Delimiter": "/"}, {"Prefix": "a", "Delimiter": "/"}, {"Prefix": "a/"}, {"Prefix": "z/", "Delimiter": "/"}):
            whole = getattr(s3, name)(Bucket=bucket, **arguments)
            found, folded = [], []
            for page in s3.get_paginator(name).paginate(Bucket=bucket, PaginationConfig={"PageSize": size}, **arguments):
                assert len(keys(page)) + len(prefixes(page)) <= size
                found += keys(page)
                folded += prefixes(page)
            assert (found, folded) == (keys(whole), prefixes(whole)), (name, arguments)


def test_starts_and_limits(s3, bucket):
    everything = ordered(KEYS)
    for after in ("", "a", "a/15", "zz", "\uffff"):
        later = [key for key in everything if key.encode() > after.encode()]
        assert keys(s3.list_objects_v2(Bucket=bucket, StartAfter=after)) == later
        assert keys(s3.list_objects(Bucket=bucket, Marker=after)) == later
    for call in (s3.list_objects, s3.list_objects_v2):
        none = call(Bucket=bucket, MaxKeys=0)
        assert (keys(none), none["IsTruncated"], none["MaxKeys"]) == ([], False, 0)
        first = call(Bucket=bucket, MaxKeys=1)
        assert (keys(first), first["IsTruncated"]) == (everything[:1], True)
        assert call(Bucket=bucket, MaxKeys=5000)["MaxKeys"] == 1000
        refused(call, "InvalidArgument", 400, Bucket=bucket, MaxKeys=-1)
        refused(call, "InvalidArgument", 400, Bucket=bucket, EncodingType="base64")
        refused(call, "NoSuchBucket", 404, Bucket="no-such-bucket-anywhere")
        refused(call, "NoSuchBucket", 404, Bucket="no-such-bucket-anywhere", MaxKeys=0)
    for token in ("", "nonsense", "AAAA=="):
        refused(s3.list_objects_v2, "InvalidArgument", 400, Bucket=bucket, ContinuationToken=token)


def test_the_encoding_is_the_client_s_choice(server, bucket):
    encoded = send(server, "GET", f"/{bucket}?encoding-type=url&list-type=2&prefix=d").body.decode()
    assert "<Key>d%252F</Key>" in encoded and "<Key>d%26%3C%3E%22%27</Key>" in encoded
    plain = send(server, "GET", f"/{bucket}?list-type=2&prefix=d").body.decode()
    assert "<Key>d%2F</Key>" in plain and "<Key>d&amp;&lt;&gt;" in plain
    answer = send(server, "GET", f"/{bucket}?list-type=2&max-keys=many")
    assert (answer.status, answer.code) == (400, "InvalidArgument")


def test_more_than_a_thousand(s3, bucket):
    numbers = [f"many/{number:05}" for number in range(1050)]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda key: s3.put_object(Bucket=bucket, Key=key, Body=b""), numbers))
    first = s3.list_objects_v2(Bucket=bucket, Prefix="many/", MaxKeys=2000)
    assert (first["KeyCount"], first["IsTruncated"]) == (1000, True)
    rest = s3.list_objects_v2(Bucket=bucket, Prefix="many/", ContinuationToken=first["NextContinuationToken"])
    assert keys(first) + keys(rest) == numbers and rest["IsTruncated"] is False


def test_buckets_are_listed_in_pages(server, s3):
    names = sorted(f"page-{os.urandom(4).hex()}" for _ in range(3))
    for name in names:
        s3.create_bucket(Bucket=name)
    pages = s3.get_paginator("list_buckets").paginate(Prefix="page-", PaginationConfig={"PageSize": 2})
    found = [[bucket["Name"] for bucket in page["Buckets"]] for page in pages]
    assert found == [names[:2], names[2:]]
    for most in (0, 10_001):
        answer = send(server, "GET", f"/?max-buckets={most}")
        assert (answer.status, answer.code) == (400, "InvalidArgument")
