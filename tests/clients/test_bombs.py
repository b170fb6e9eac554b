"""Little that would become much: refused soon, and the server is as well as before."""

import gzip
import io
import json
import tarfile
import time
import urllib.error
import urllib.request

from conftest import BASE_IMAGE, archive

SOON_SECONDS = 60


def refused(url, body):
    begun = time.monotonic()
    try:
        urllib.request.urlopen(urllib.request.Request(url, data=body, method="PUT"), timeout=SOON_SECONDS)
    except urllib.error.HTTPError as error:
        assert 400 <= error.code < 500, (error.code, error.read())
    except urllib.error.URLError as error:
        # A body that is too large is not read to its end.
        assert isinstance(error.reason, (BrokenPipeError, ConnectionResetError)), error
    else:
        raise AssertionError("it was taken")
    assert time.monotonic() - begun < SOON_SECONDS


def test_xml_neither_nests_nor_expands_without_end(boto, bucket):
    s3 = boto("s3")
    s3.put_object(Bucket=bucket, Key="bombs", Body=b"")
    url = s3.generate_presigned_url("put_object_tagging", Params={"Bucket": bucket, "Key": "bombs", "Tagging": {"TagSet": []}})
    entities = "".join(f'<!ENTITY l{level} "{f"&l{level - 1};" * 10}">' for level in range(1, 10))
    tag = "<Tagging><TagSet><Tag><Key>&l9;</Key><Value>v</Value></Tag></TagSet></Tagging>"
    refused(url, f'<!DOCTYPE d [<!ENTITY l0 "lol">{entities}]>{tag}'.encode())
    refused(url, b"<Tagging>" * 200_000)
    refused(url, b"<Tagging><TagSet>" + b"<Tag><Key>k</Key><Value>v</Value></Tag>" * 100_000 + b"</TagSet></Tagging>")
    assert s3.get_object_tagging(Bucket=bucket, Key="bombs")["TagSet"] == []


def zeros(*members):
    """A tar.gz of names and sizes; the contents are zeros, of which gzip makes little."""
    some = gzip.compress(b"\0" * (1 << 20), 9)
    packed = io.BytesIO()
    for name, size in members:
        member = tarfile.TarInfo(name)
        member.size = size
        packed.write(gzip.compress(member.tobuf(), 9))
        packed.write(some * (size >> 20))
    return packed.getvalue()


def fails(jobs, name, body, **request):
    """Runs a job with this archive, which fails soon; gives the reason."""
    key = f"jobs/{name}/bomb.tar.gz"
    jobs.s3.put_object(Bucket=jobs.bucket, Key=key, Body=body)
    parameters = {"sagemaker_program": '"train.py"', "sagemaker_submit_directory": json.dumps(f"s3://{jobs.bucket}/{key}")}
    begun = time.monotonic()
    jobs.sagemaker.create_training_job(
        TrainingJobName=name,
        AlgorithmSpecification={"TrainingImage": BASE_IMAGE, "TrainingInputMode": "File"},
        RoleArn=jobs.role,
        HyperParameters=parameters,
        OutputDataConfig={"S3OutputPath": f"s3://{jobs.bucket}/models"},
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        StoppingCondition={"MaxRuntimeInSeconds": 300},
        **request,
    )
    job = jobs.wait(name)
    assert job["TrainingJobStatus"] == "Failed" and time.monotonic() - begun < SOON_SECONDS, job
    return job["FailureReason"]


def test_archives_that_grow_fail_their_job_soon(jobs):
    deep = "/".join(["d"] * 20_000)
    long_name = tarfile.TarInfo(deep)
    buffer = long_name.tobuf(tarfile.PAX_FORMAT)
    assert "cannot be unpacked" in fails(jobs, "bomb-deep", gzip.compress(buffer + b"\0" * 1024))
    torn = fails(jobs, "bomb-torn", zeros(("train.py", 1 << 20))[:-100])
    assert "cut off" in torn or "damaged" in torn, torn


def test_manifests_that_grow_fail_their_job_soon(jobs):
    channel = lambda uri, kind: [
        {"ChannelName": "train", "DataSource": {"S3DataSource": {"S3DataType": kind, "S3Uri": f"s3://{jobs.bucket}/{uri}"}}}
    ]
    script = {"train.py": "print('never')"}
    deep = b"[" * 1_000_000
    many = json.dumps([{"prefix": f"s3://{jobs.bucket}/"}] + [str(number) for number in range(1_000_001)]).encode()
    for name, body in {"manifest-deep": deep, "manifest-many": many}.items():
        jobs.s3.put_object(Bucket=jobs.bucket, Key=f"bombs/{name}", Body=body)
        reason = fails(jobs, name, archive(script), InputDataConfig=channel(f"bombs/{name}", "ManifestFile"))
        assert "manifest" in reason, reason
