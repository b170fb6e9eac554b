"""Objects of the S3 front, one large, many small and one in parallel parts, beside raw files and SeaweedFS."""

import hashlib
import http.client
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import boto3
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials

from harness import load, options, recording, report
from harness.modelyard import Modelyard, wait
from harness.processes import Process, free_port

LARGE_BYTES = 1 << 30
SMALL_OBJECTS = 10_000
SMALL_BYTES = 4096
CONNECTIONS = 16
PARTS = 64
ROUNDS = 3
# Bytes that the client moves at a time.
BLOCK_BYTES = 1 << 20
KEY, SECRET = "benchmark", "benchmark-secret"


class Store:
    """An S3 server under measurement."""

    def __init__(self, label, endpoint, key, secret):
        self.label, self.endpoint, self.bucket = label, endpoint, "benchmark"
        self.address = urlsplit(endpoint).netloc
        self.connection = {"access_key_id": key, "secret_access_key": secret, "region": "us-east-1"}
        config = Config(retries={"max_attempts": 0}, s3={"addressing_style": "path"}, read_timeout=120, signature_version="s3v4")
        self.client = boto3.client(
            "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id=key, aws_secret_access_key=secret, config=config
        )

    def send(self, operation, body=None, **parameters):
        """One presigned request; the answer's body is read and thrown away. Returns its headers."""
        url = urlsplit(self.client.generate_presigned_url(operation, Params={"Bucket": self.bucket, **parameters}))
        method = "GET" if operation == "get_object" else "PUT"
        host, port = self.address.split(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=120, blocksize=BLOCK_BYTES)
        headers = {"Content-Length": str(len(body))} if body is not None else {}
        if "ServerSideEncryption" in parameters:
            headers["x-amz-server-side-encryption"] = parameters["ServerSideEncryption"]
        try:
            connection.request(method, f"{url.path}?{url.query}", body, headers)
            answer = connection.getresponse()
            if answer.status != 200:
                raise SystemExit(f"{self.label} answered {answer.status} to {operation}: {answer.read(500)}")
            buffer, count = bytearray(BLOCK_BYTES), 0
            while read := answer.readinto(buffer):
                count += read
            if operation == "get_object" and count != LARGE_BYTES:
                raise SystemExit(f"{self.label} answered {count} of {LARGE_BYTES} bytes")
            return answer.headers
        finally:
            connection.close()

    def put_parts(self, data):
        """One object in parts that are sent at the same time."""
        upload = self.client.create_multipart_upload(Bucket=self.bucket, Key="parts")["UploadId"]
        size = LARGE_BYTES // PARTS
        view = memoryview(data)

        def part(number):
            piece = view[(number - 1) * size : number * size]
            headers = self.send("upload_part", piece, Key="parts", UploadId=upload, PartNumber=number)
            return {"PartNumber": number, "ETag": headers["ETag"]}

        with ThreadPoolExecutor(PARTS) as pool:
            parts = list(pool.map(part, range(1, PARTS + 1)))
        self.client.complete_multipart_upload(Bucket=self.bucket, Key="parts", UploadId=upload, MultipartUpload={"Parts": parts})

    def record(self, path, method, prefix):
        """Signed requests of all small objects for the load generator."""
        body = "x" * SMALL_BYTES if method == "PUT" else ""
        credentials = Credentials(self.connection["access_key_id"], self.connection["secret_access_key"])
        hashed = {"X-Amz-Content-SHA256": hashlib.sha256(body.encode()).hexdigest(), "Host": self.address}
        with path.open("w") as file:
            for number in range(SMALL_OBJECTS):
                target = f"/{self.bucket}/{prefix}/{number % 100}/{number}"
                request = AWSRequest(method, f"{self.endpoint}{target}", dict(hashed), body)
                S3SigV4Auth(credentials, "s3", "us-east-1").add_auth(request)
                file.write(recording.line(method, target, dict(request.headers.items()), body) + "\n")
        return path

    def small(self, folder, number):
        """Seconds to put all small objects, and to get them."""
        seconds = []
        for method in ("PUT", "GET"):
            requests = self.record(folder / "small", method, f"small-{number}")
            result = load.replay(self.address, requests, CONNECTIONS, 300, once=True)
            if result["requests"] != SMALL_OBJECTS:
                raise SystemExit(f"{self.label} took {result['requests']} of {SMALL_OBJECTS} requests")
            seconds.append(result["seconds"])
        return seconds


class Raw:
    """Files without a server: what the disk gives."""

    def __init__(self, folder):
        self.folder = folder / "raw"
        self.folder.mkdir()

    def put(self, name, data):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb", buffering=0) as file:
            view = memoryview(data)
            for at in range(0, len(data), BLOCK_BYTES):
                file.write(view[at : at + BLOCK_BYTES])
            os.fsync(file.fileno())

    def get(self, name):
        buffer = bytearray(BLOCK_BYTES)
        with (self.folder / name).open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass

    def small(self):
        """Seconds to write all small files, each forced to the disk, and to read them."""
        names = [f"small/{number % 100}/{number}" for number in range(SMALL_OBJECTS)]
        data, seconds = b"x" * SMALL_BYTES, []
        for work in (lambda name: self.put(name, data), self.get):
            with ThreadPoolExecutor(CONNECTIONS) as pool:
                seconds.append(timed(lambda: list(pool.map(work, names))))
        return seconds


def timed(work):
    """Seconds that some work takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def seaweed(folder):
    """The command of a SeaweedFS server with one volume server, one filer and the S3 gateway, and its port."""
    program = Path(sys.executable).parent / "weed"
    identity = {
        "name": "benchmark",
        "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (folder / "seaweed.json").write_text(json.dumps({"identities": [identity]}))
    data = folder / "seaweed"
    data.mkdir()
    ports = {name: free_port() for name in ("master.port", "volume.port", "filer.port", "s3.port")}
    ports |= {f"{name}.grpc": free_port() for name in list(ports)}
    command = [program, "server", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3", f"-s3.config={folder / 'seaweed.json'}"]
    # Volumes of 1 GB each, so that the first ones do not take the disk.
    command += ["-master.volumeSizeLimitMB=1024", "-volume.max=20", *(f"-{name}={port}" for name, port in ports.items())]
    return command, ports["s3.port"]


def ready(store):
    """Waits until a bucket can be made."""

    def made():
        try:
            store.client.create_bucket(Bucket=store.bucket)
            store.client.put_object(Bucket=store.bucket, Key="first", Body=b"x")
            return True
        except Exception:
            return False

    wait(f"{store.label} answers", made, seconds=60)


def large(store, data, measured, key, **wish):
    """Puts and gets one large object, and removes it."""
    name = f"{'sealed ' if wish else ''}large"
    measured[key, f"put {name}"].append(timed(lambda: store.send("put_object", data, Key="large", **wish)))
    measured[key, f"get {name}"].append(timed(lambda: store.send("get_object", Key="large")))
    store.client.delete_object(Bucket=store.bucket, Key="large")


class Measured(dict):
    """Seconds of each round by side and kind of work."""

    def __missing__(self, key):
        self[key] = []
        return self[key]

    def best(self, side, work):
        return min(self[side, work]) if (side, work) in self else None


def main():
    chosen = options.parse(__doc__)
    report.heading("S3")
    data = os.urandom(BLOCK_BYTES) * (LARGE_BYTES // BLOCK_BYTES)
    measured, raw = Measured(), Raw(chosen.folder)
    command, port = seaweed(chosen.folder)
    with Modelyard(chosen.modelyard, chosen.folder) as server, Process(command, chosen.folder / "seaweed.log"):
        own = server.connection
        ours = Store("Modelyard", server.endpoint, own["access_key_id"], own["secret_access_key"])
        theirs = Store("SeaweedFS", f"http://127.0.0.1:{port}", KEY, SECRET)
        for store in (ours, theirs):
            ready(store)
        for number in range(ROUNDS):
            measured["raw", "put large"].append(timed(lambda: raw.put("large", data)))
            measured["raw", "get large"].append(timed(lambda: raw.get("large")))
            (raw.folder / "large").unlink()
            for side, store in (("ours", ours), ("theirs", theirs)):
                large(store, data, measured, side)
                measured[side, "put parts"].append(timed(lambda: store.put_parts(data)))
                store.client.delete_object(Bucket=store.bucket, Key="parts")
            large(ours, data, measured, "ours", ServerSideEncryption="AES256")
        for number in range(ROUNDS - 1):
            for method, seconds in zip(("put", "get"), raw.small()):
                measured["raw", f"{method} small"].append(seconds)
            for side, store in (("ours", ours), ("theirs", theirs)):
                for method, seconds in zip(("put", "get"), store.small(chosen.folder, number)):
                    measured[side, f"{method} small"].append(seconds)
    for parts in ("put parts",):
        measured["raw", parts] = measured["raw", "put large"]
    for method in ("put", "get"):
        measured["raw", f"{method} sealed large"] = measured["raw", f"{method} large"]
    labels = {
        "put large": "put 1 GiB",
        "get large": "get 1 GiB",
        "put sealed large": "put 1 GiB, AES256",
        "get sealed large": "get 1 GiB, AES256",
        "put parts": f"put 1 GiB in {PARTS} parallel parts",
        "put small": f"put {SMALL_OBJECTS} of 4 KiB",
        "get small": f"get {SMALL_OBJECTS} of 4 KiB",
    }
    rows = []
    for work, label in labels.items():
        ours, theirs, files = (measured.best(side, work) for side in ("ours", "theirs", "raw"))
        cells = [f"{seconds:.2f}" if seconds else "" for seconds in (ours, theirs, files)]
        rows.append([label, *cells, report.ratio(theirs, ours) if theirs else "", report.ratio(files, ours)])
    report.table(["seconds, best round", "Modelyard", "SeaweedFS", "raw files, fsync", "SeaweedFS / Modelyard", "raw / Modelyard"], rows)


if __name__ == "__main__":
    main()
