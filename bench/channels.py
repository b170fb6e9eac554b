"""Start of a job with a big or a wide channel of local objects, over the start without it, and over a raw copy of the bytes."""

import statistics
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

from harness import options, report
from harness.modelyard import OWN_ENVIRONMENT, Modelyard, wait

from job_start import Jobs, printed

ROUNDS = 5
PART_BYTES = 64 << 20
BIG_PARTS = 160
BIG_BYTES = BIG_PARTS * PART_BYTES
SMALL_FILES = 10_000
SMALL_BYTES = 4096
ADDED_LIMIT_MS = 200


class ChannelJobs(Jobs):
    """Jobs with one channel."""

    def began_ms(self, name, key, mode):
        """Milliseconds from the call to the script's first line."""
        request = self.server.training_job(name, self.source)
        if key:
            source = {"S3DataType": "S3Prefix", "S3Uri": f"s3://{self.server.bucket}/{key}"}
            request["InputDataConfig"] = [{"ChannelName": "train", "InputMode": mode, "DataSource": {"S3DataSource": source}}]
        called_at = time.time_ns()
        self.sagemaker.create_training_job(**request)
        job = wait(f"{name} has ended", lambda: self.ended(name), seconds=300)
        if job["TrainingJobStatus"] != "Completed":
            raise SystemExit(f"{name} failed: {job.get('FailureReason')}")
        return (int(printed(self.lines(name), "began at ")) - called_at) / 1e6


def upload(server):
    """One object of 10 GiB, put together by the server from one part, and 10,000 of 4 KiB."""
    s3, bucket = server.client("s3"), server.bucket
    s3.put_object(Bucket=bucket, Key="part", Body=bytes(range(256)) * (PART_BYTES // 256))
    began = s3.create_multipart_upload(Bucket=bucket, Key="big/one")["UploadId"]
    parts = []
    for number in range(1, BIG_PARTS + 1):
        part = s3.upload_part_copy(Bucket=bucket, Key="big/one", UploadId=began, PartNumber=number, CopySource=f"{bucket}/part")
        parts.append({"PartNumber": number, "ETag": part["CopyPartResult"]["ETag"]})
    s3.complete_multipart_upload(Bucket=bucket, Key="big/one", UploadId=began, MultipartUpload={"Parts": parts})

    def put(number):
        s3.put_object(Bucket=bucket, Key=f"small/{number % 100}/{number}", Body=b"x" * SMALL_BYTES)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(put, range(SMALL_FILES)))


def raw_copy_ms(folder, source):
    """Milliseconds that `cp` takes for the same files, without forcing them to the disk."""
    target = folder / "raw-copy"
    began = time.monotonic()
    subprocess.run(["cp", "-r", "--reflink=never", source, target], check=True)
    elapsed = (time.monotonic() - began) * 1e3
    subprocess.run(["rm", "-r", target], check=True)
    return elapsed


def main():
    chosen = options.parse(__doc__)
    report.heading("Channels of local objects")
    rows, added = [], {}
    with Modelyard(chosen.modelyard, chosen.folder, environment=OWN_ENVIRONMENT) as server:
        jobs = ChannelJobs(server)
        upload(server)
        jobs.began_ms("warm-up", None, "File")
        kinds = [("none", None, "File"), ("big", "big/", "File"), ("wide", "small/", "File"), ("wide-fast", "small/", "FastFile")]
        measured = {name: [] for name, _, _ in kinds}
        for number in range(ROUNDS):
            for name, key, mode in kinds:
                measured[name].append(jobs.began_ms(f"{name}-{number}", key, mode))
        medians = {name: statistics.median(values) for name, values in measured.items()}
        objects = server.data_dir / "buckets" / server.bucket
        copies = {"big": raw_copy_ms(chosen.folder, objects / "big"), "wide": raw_copy_ms(chosen.folder, objects / "small")}
    names = {
        "none": "no channel",
        "big": f"one object of {BIG_BYTES >> 30} GiB, File",
        "wide": f"{SMALL_FILES} objects of {SMALL_BYTES >> 10} KiB, File",
        "wide-fast": f"{SMALL_FILES} objects of {SMALL_BYTES >> 10} KiB, FastFile",
    }
    for name, label in names.items():
        added[name] = medians[name] - medians["none"]
        copy = copies.get(name.split("-")[0])
        rows.append([label, f"{medians[name]:.0f}", f"{added[name]:.0f}", f"{copy:.0f}" if copy else "", ""])
        if copy:
            rows[-1][-1] = report.ratio(copy, medians[name])
    report.table(["ms to the first line of user code", "median", "added by the channel", "raw copy (cp)", "copy / start"], rows)
    report.verdict(f"start of a {BIG_BYTES >> 30} GiB channel, added", added["big"], ADDED_LIMIT_MS, "ms")


if __name__ == "__main__":
    main()
