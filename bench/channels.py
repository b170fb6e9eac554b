"""Start of a job with a big channel of local objects, over a raw copy of the same bytes; and with many small objects."""

import shutil
import statistics
import time
from concurrent.futures import ThreadPoolExecutor

from harness import options, report
from harness.modelyard import OWN_ENVIRONMENT, Modelyard, wait

from job_start import Jobs

ROUNDS = 5
PART_BYTES = 64 << 20
BIG_PARTS = 160  # 10 GiB
SMALL_FILES = 10_000
ADDED_LIMIT_MS = 200


def upload_big(server, s3, folder):
    """One object of 10 GiB, sent once and put together by copies of its part; holes are not taken for data."""
    s3.put_object(Bucket=server.bucket, Key="bench/part", Body=memoryview(bytes(range(256)) * (PART_BYTES // 256)).tobytes())
    upload = s3.create_multipart_upload(Bucket=server.bucket, Key="bench/big/one.bin")["UploadId"]
    parts = []
    for number in range(1, BIG_PARTS + 1):
        copied = s3.upload_part_copy(
            Bucket=server.bucket, Key="bench/big/one.bin", UploadId=upload, PartNumber=number, CopySource=f"{server.bucket}/bench/part"
        )
        parts.append({"PartNumber": number, "ETag": copied["CopyPartResult"]["ETag"]})
    s3.complete_multipart_upload(
        Bucket=server.bucket, Key="bench/big/one.bin", UploadId=upload, MultipartUpload={"Parts": parts}
    )


def upload_small(server, s3):
    put = lambda number: s3.put_object(Bucket=server.bucket, Key=f"bench/small/{number % 100}/{number}", Body=b"x" * 4096)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(put, range(SMALL_FILES)))


def raw_copy(folder, prefix):
    """Milliseconds of a plain copy of the files under a prefix."""
    source, target = folder / "data" / "buckets", folder / "raw-copy"
    (bucket,) = [one for one in source.iterdir() if (one / "bench" / prefix).is_dir()]
    began = time.monotonic()
    shutil.copytree(bucket / "bench" / prefix, target)
    elapsed = (time.monotonic() - began) * 1e3
    shutil.rmtree(target)
    return elapsed
