"""A load whose every step is remembered as acknowledged or not, and what must hold of it after any fault."""

import contextlib
import hashlib
import http.server
import io
import pathlib
import re
import subprocess
import tarfile
import threading
from datetime import datetime, timedelta, timezone

import botocore.exceptions
import pytest

from conftest import ROOT, Jobs, Server, UnderLoad, poll, stop_all

NOT_ANSWERED = (botocore.exceptions.HTTPClientError, botocore.exceptions.ConnectionError)
GROUP = "/kept/events"
STEPS = 4

# Its model depends on every step, wherever it was interrupted. Each attempt but the last goes its part of the way and waits for its end.
SCRIPT = """
import hashlib, json, os, sys, threading
place = "/opt/ml/checkpoints/state.json"
state = json.load(open(place)) if os.path.exists(place) else {"step": 0, "hash": "", "attempt": 0}
steps, attempts = (int(sys.argv[sys.argv.index(name) + 1]) for name in ("--steps", "--attempts"))
attempt = state["attempt"] + 1
print("begins at", state["step"], flush=True)
for step in range(state["step"], steps * min(attempt, attempts) // attempts):
    hash = hashlib.sha256(f"{state['hash']}{step}".encode()).hexdigest()
    state = {"step": step + 1, "hash": hash, "attempt": attempt}
    with open(place + ".new", "w") as file:
        json.dump(state, file)
    os.replace(place + ".new", place)
    print(f"loss={step};", flush=True)
    threading.Event().wait(0.03)
if attempt < attempts:
    threading.Event().wait()
open("/opt/ml/model/weights", "w").write(state["hash"])
"""


def model(steps):
    """What the script leaves after that many steps."""
    state = ""
    for step in range(steps):
        state = hashlib.sha256(f"{state}{step}".encode()).hexdigest()
    return state.encode()


def points():
    """The names of all failpoints, from the one list of them."""
    text = (ROOT / "crates/failpoint/src/points.rs").read_text()
    return re.findall(r'^    \w+ = "([a-z-]+)",$', text, re.MULTILINE)


class FaultyServer(Server):
    """A server whose failpoints can be armed while it runs."""

    def __init__(self, root, *flags):
        super().__init__(root / "data", *flags)
        self.orders = root / "failpoints"
        self.orders.mkdir()
        self.variables = {"MODELYARD_FAILPOINTS": str(self.orders)}

    def arm(self, point, order="abort"):
        (self.orders / "new").write_text(order)
        (self.orders / "new").rename(self.orders / point)

    def disarm(self, point):
        (self.orders / point).unlink(missing_ok=True)

    def was_hit(self, point):
        return (self.orders / f"{point}.hit").exists()

    def has_died(self):
        return self.process.poll() is not None

    def restart(self):
        """Starts it after it died, if it did."""
        if self.has_died():
            self.process.stdout.close()
            self.start()

    def start_until_it_dies(self):
        """A start that a failpoint ends."""
        try:
            self.start()
        except pytest.fail.Exception:
            assert self.process.wait(30) != 0
        else:
            poll(self.has_died, "the server dies just after its start", 10)

    def processes(self):
        """Everything that runs for this data directory but the server itself: process id and command."""
        found = []
        for entry in pathlib.Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == self.process.pid:
                continue
            try:
                command = (entry / "cmdline").read_bytes().decode(errors="replace")
                # bubblewrap has nothing of it on its command line.
                environment = (entry / "environ").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if str(self.data_dir) in command or f"MODELYARD_WORKLOAD={self.data_dir}/" in environment:
                found.append((int(entry.name), command.replace("\0", " ")))
        return found

    def supervisors(self):
        return [pid for pid, command in self.processes() if " supervise " in command]


class Load:
    """Everything that a client may do, with a memory. `fails` is told of answers that are neither success nor silence."""

    def __init__(self, server):
        self.server = server
        self.number = 0
        self.lock = threading.Lock()
        # What may be there now: more than one thing only after a fault. None is nothing.
        self.objects, self.buckets, self.streams = {}, {"kept": {True}}, {}
        self.events, self.values = {}, {}
        self.uploads, self.jobs = {}, {}
        self.refusals = []
        self.base = datetime.now(timezone.utc).replace(second=0, microsecond=0) - timedelta(days=2)
        self.connect()
        self.s3.create_bucket(Bucket="kept")
        self.logs.create_log_group(logGroupName=GROUP)
        self.logs.create_log_stream(logGroupName=GROUP, logStreamName="all")
        self.role = server.client("iam").get_role(RoleName="ModelyardExecutionRole")["Role"]["Arn"]

    def connect(self):
        """Clients of the server as it listens now."""
        client = self.server.client
        self.s3, self.logs, self.cloudwatch = client("s3"), client("logs"), client("cloudwatch")
        self.sagemaker = client("sagemaker")

    def next(self):
        with self.lock:
            self.number += 1
            return self.number

    def attempt(self, memory, key, then, call):
        """Makes a change; afterwards it has happened, or after a fault it may have happened."""
        with self.lock:
            memory[key] = memory.get(key, {None}) | {then}
        try:
            answer = call()
        except NOT_ANSWERED:
            return None
        except botocore.exceptions.ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] < 500:
                raise
            self.refusals.append(error)
            return None
        with self.lock:
            memory[key] = {then}
        return answer

    def put(self, key, content, bucket="kept"):
        call = lambda: self.s3.put_object(Bucket=bucket, Key=key, Body=content)
        return self.attempt(self.objects, (bucket, key), content, call)

    def delete(self, *keys):
        for key in keys:
            with self.lock:
                self.objects[("kept", key)] = self.objects.get(("kept", key), {None}) | {None}
        try:
            self.s3.delete_objects(Bucket="kept", Delete={"Objects": [{"Key": key} for key in keys]})
        except (botocore.exceptions.ClientError, *NOT_ANSWERED):
            return
        for key in keys:
            self.objects[("kept", key)] = {None}

    def copy(self, source, target):
        """Only of what is known for sure."""
        content = self.objects.get(("kept", source), {None})
        if len(content) == 1 and None not in content:
            call = lambda: self.s3.copy_object(Bucket="kept", Key=target, CopySource={"Bucket": "kept", "Key": source})
            self.attempt(self.objects, ("kept", target), next(iter(content)), call)

    def upload(self, key, content, complete=True):
        """An upload in parts that is completed, or given up."""
        named = {"Bucket": "kept", "Key": key}
        try:
            named["UploadId"] = self.s3.create_multipart_upload(**named)["UploadId"]
            self.uploads[named["UploadId"]] = key
            # Twice: the second replaces the first.
            for body in (b"replaced", content):
                part = self.s3.upload_part(**named, PartNumber=1, Body=body)
            if not complete:
                self.s3.abort_multipart_upload(**named)
                self.uploads.pop(named["UploadId"])
        except (botocore.exceptions.ClientError, *NOT_ANSWERED):
            return
        if complete:
            parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
            done = self.attempt(
                self.objects, ("kept", key), content, lambda: self.s3.complete_multipart_upload(**named, MultipartUpload=parts)
            )
            if done:
                self.uploads.pop(named["UploadId"])

    def bucket(self, name):
        """A bucket that comes and goes."""
        if self.attempt(self.buckets, name, True, lambda: self.s3.create_bucket(Bucket=name)):
            self.attempt(self.buckets, name, None, lambda: self.s3.delete_bucket(Bucket=name))

    def event(self):
        number = self.next()
        event = {"timestamp": int(datetime.now().timestamp() * 1000), "message": f"event {number} " + "x" * 200}
        call = lambda: self.logs.put_log_events(logGroupName=GROUP, logStreamName="all", logEvents=[event])
        self.attempt(self.events, event["message"], True, call)

    def stream(self):
        """A stream that comes, gets an event, and goes."""
        name = f"passing-{self.next()}"
        named = {"logGroupName": GROUP, "logStreamName": name}
        event = {"timestamp": int(datetime.now().timestamp() * 1000), "message": name}
        if self.attempt(self.streams, name, "empty", lambda: self.logs.create_log_stream(**named)):
            if self.attempt(self.streams, name, "full", lambda: self.logs.put_log_events(**named, logEvents=[event])):
                self.attempt(self.streams, name, None, lambda: self.logs.delete_log_stream(**named))

    def value(self):
        number = self.next()
        at = self.base + timedelta(minutes=number)
        data = [{"MetricName": "kept", "Timestamp": at, "Value": float(number)}]
        call = lambda: self.cloudwatch.put_metric_data(Namespace="Kept", MetricData=data)
        self.attempt(self.values, at, float(number), call)

    def data(self):
        """A round of everything but jobs."""
        number = self.next()
        self.put(f"new/{number}", b"n%d" % number * 500)
        self.put("again", b"a%d" % number * 3000)
        self.copy("again", f"copies/{number % 3}")
        self.upload(f"parts/{number % 3}", b"p%d" % number * 1000)
        self.upload("parts/given-up", b"never", complete=False)
        if number % 2:
            self.delete(f"new/{number}", "copies/0")
        self.bucket(f"passing-{number}")
        self.event()
        self.stream()
        self.value()

    def job(self, name=None, checkpoints=None, steps=STEPS, attempts=1, **request):
        """Starts a job that ends in that many attempts at the earliest; returns its name when that was acknowledged."""
        name = name or f"job-{self.next()}"
        jobs = Jobs(self.server, "kept", self.role)

        def start():
            jobs.start(
                name,
                SCRIPT,
                HyperParameters={"steps": str(steps), "attempts": str(attempts)},
                AlgorithmSpecification={"MetricDefinitions": [{"Name": "loss", "Regex": "loss=([0-9]+);"}]},
                CheckpointConfig={"S3Uri": f"s3://kept/checkpoints/{checkpoints or name}"},
                InputDataConfig=[
                    {
                        "ChannelName": "train",
                        "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://kept/channel/"}},
                    }
                ],
                **request,
            )
            return True

        return name if self.attempt(self.jobs, name, steps, start) else None

    # What must hold.

    def check(self):
        """Each acknowledged write is there whole, each other one whole or not at all; what is there counts from now on."""
        self.connect()
        self.check_objects()
        self.check_events()
        self.check_values()

    def check_objects(self):
        for (bucket, key), possible in self.objects.items():
            try:
                found = self.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
            except self.s3.exceptions.NoSuchKey:
                found = None
            shown = [one and one[:20] for one in possible]
            assert found in possible, f"{key} is {found and found[:20]}, {len(found or b'')} bytes, not one of {shown}"
            self.objects[(bucket, key)] = {found}
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket="kept")
        listed = {entry["Key"] for page in pages for entry in page.get("Contents", [])}
        known = {key for (bucket, key), content in self.objects.items() if content != {None}}
        others = {key for key in listed - known if not key.startswith(("checkpoints/", "models/", "jobs/"))}
        assert known <= listed and not others, others
        buckets = {bucket["Name"] for bucket in self.s3.list_buckets()["Buckets"]}
        for name, possible in self.buckets.items():
            found = True if name in buckets else None
            assert found in possible, f"the bucket {name} is {found}"
            self.buckets[name] = {found}
        for upload, key in list(self.uploads.items()):
            try:
                self.s3.list_parts(Bucket="kept", Key=key, UploadId=upload)
                self.s3.abort_multipart_upload(Bucket="kept", Key=key, UploadId=upload)
            except self.s3.exceptions.ClientError as error:
                assert error.response["Error"]["Code"] == "NoSuchUpload", error
            del self.uploads[upload]

    def check_events(self):
        found, token = [], {}
        while True:
            page = self.logs.get_log_events(logGroupName=GROUP, logStreamName="all", startFromHead=True, **token)
            if not page["events"]:
                break
            found += [event["message"] for event in page["events"]]
            token = {"nextToken": page["nextForwardToken"]}
        for message, possible in self.events.items():
            count = found.count(message)
            assert count == 1 if possible == {True} else count <= 1, f"{message[:20]} is there {count} times"
        there = {}
        for page in self.logs.get_paginator("describe_log_streams").paginate(logGroupName=GROUP, logStreamNamePrefix="passing-"):
            for stream in page["logStreams"]:
                there[stream["logStreamName"]] = "full" if "lastEventTimestamp" in stream else "empty"
        for name, possible in self.streams.items():
            assert there.get(name) in possible, f"the stream {name} is {there.get(name)}, not one of {possible}"

    def check_values(self):
        query = {"Namespace": "Kept", "MetricName": "kept", "Period": 60, "Statistics": ["SampleCount", "Sum"]}
        points, start = {}, self.base
        while self.values and start <= max(self.values):
            end = start + timedelta(minutes=1000)
            page = self.cloudwatch.get_metric_statistics(**query, StartTime=start, EndTime=end)["Datapoints"]
            points |= {point["Timestamp"]: (point["SampleCount"], point["Sum"]) for point in page}
            start = end
        for at, possible in self.values.items():
            value = next(one for one in possible if one is not None)
            may_be = {(1.0, value)} if possible == {value} else {(1.0, value), None}
            assert points.get(at) in may_be, f"{at}: {points.get(at)} of {may_be}"

    def check_job(self, name, may_fail=False):
        """Waits for the end of a job, which must be the right one."""
        jobs = Jobs(self.server, "kept", self.role)
        job = jobs.wait(name)
        statuses = [transition["Status"] for transition in job["SecondaryStatusTransitions"]]
        if job["TrainingJobStatus"] == "Failed" and may_fail:
            assert "supervisor" in job["FailureReason"], job["FailureReason"]
            return "Failed"
        assert job["TrainingJobStatus"] == "Completed", f"{name}: {job.get('FailureReason')}"
        # Only one that is retried or was interrupted begins anew.
        attempts = 1 + statuses.count("Restarting")
        assert attempts == 1 or "RetryStrategy" in job or "Interrupted" in statuses, f"{name}: {statuses}"
        last = statuses[::-1][: statuses[::-1].index("Restarting")][::-1] if attempts > 1 else statuses
        # An interruption may come when the script has just ended by itself.
        if "Interrupted" in last and last[last.index("Interrupted") - 1] == "Training":
            last.remove("Interrupted")
        # Whoever waits for room starts again; nothing else comes twice.
        assert [one for one in last if one == "Starting" or one == "Pending"] == last[:-4], f"{name}: {statuses}"
        assert last[-4:] == ["Downloading", "Training", "Uploading", "Completed"], f"{name}: {statuses}"
        body = self.s3.get_object(Bucket="kept", Key=f"models/{name}/output/model.tar.gz")["Body"].read()
        (steps,) = self.jobs[name] - {None}
        with tarfile.open(fileobj=io.BytesIO(body)) as tar:
            assert tar.extractfile("weights").read() == model(steps), f"{name} left another model"
        lines = jobs.lines(name)
        # An attempt may be lost before its program runs; the last one was not.
        begun = [int(line.split()[-1]) for line in lines if line.startswith("begins at")]
        assert 1 <= len(begun) <= attempts, f"{name} ran once in each of {attempts} attempts: {lines}"
        assert begun == sorted(begun), f"{name} went back behind a checkpoint: {lines}"
        return "Completed"

    def exists(self, name):
        try:
            self.sagemaker.describe_training_job(TrainingJobName=name)
            return True
        except self.sagemaker.exceptions.ClientError:
            return False

    def check_nothing_is_left(self):
        """No process, no folder of a job, no file that belongs to no object."""
        data = self.server.data_dir
        poll(lambda: not self.server.processes(), f"no process is left: {self.server.processes()}", 30)
        for folder in ("jobs", "workloads"):
            poll(lambda: not list((data / folder).glob("*")), f"nothing is left in {folder}", 30)
        objects = self.s3.get_paginator("list_objects_v2").paginate(Bucket="kept")
        count = sum(page.get("KeyCount", 0) for page in objects)
        files = lambda: [path for path in (data / "buckets/kept").rglob("*") if path.is_file()]
        poll(lambda: len(files()) == count, f"{count} objects have {len(files())} files", 30)


@contextlib.contextmanager
def perhaps_its_last(server):
    """For a call whose effect is the end of the server, perhaps before it has answered."""
    try:
        yield
    except NOT_ANSWERED:
        poll(server.has_died, "a server that does not answer has died")


class Steadily(UnderLoad):
    """Clients that ask one request after another, and wait while the server is down. `ask` gets a client of the runtime and gives what the
    model says; a request that gets no answer from a server that lives is an error."""

    def __init__(self, server, ask, count=3):
        self.server, self.ask = server, ask
        self.answers, self.errors = [], []
        self.is_up, self.over = threading.Event(), threading.Event()
        self.is_up.set()
        self.threads = [threading.Thread(target=self.call) for _ in range(count)]

    def call(self):
        runtime = self.server.client("sagemaker-runtime")
        while not self.over.is_set():
            process = self.server.process
            if not self.is_up.wait(0.1):
                continue
            try:
                self.answers.append(self.ask(runtime))
            except NOT_ANSWERED as error:
                try:
                    process.wait(5)
                except subprocess.TimeoutExpired:
                    self.errors.append(error)
            except Exception as error:
                self.errors.append(error)

    def more(self, count=20):
        """The next answers."""
        before = len(self.answers)
        poll(lambda: len(self.answers) >= before + count, f"{count} more requests are answered")
        return self.answers[before:]

    def restart(self):
        """Starts the server again when it has died."""
        poll(self.server.has_died, "the server dies")
        self.is_up.clear()
        self.server.restart()
        self.is_up.set()

    def kill(self):
        """Kills the server, and starts it again."""
        self.is_up.clear()
        self.server.process.kill()
        self.server.process.wait()
        self.server.restart()
        self.is_up.set()

    def through_each_step(self, is_over):
        """Kills the server whenever requests have moved and that is not written down, until the deployment is over; how often that was."""
        kills = 0

        def has_ended():
            try:
                return is_over()
            except NOT_ANSWERED:
                return False

        while True:
            poll(lambda: self.server.has_died() or has_ended(), "the next step, or the end")
            if not self.server.has_died():
                self.server.disarm("deployment-moved")
                return kills
            kills += 1
            # The step that was not written down is taken again, and the next one is cut off.
            self.server.arm("deployment-moved", "skip 1 abort")
            self.restart()


@pytest.fixture
def faulty(tmp_path):
    """A server for one test, with failpoints."""
    server = FaultyServer(tmp_path).start()
    yield server
    stop_all(server)


@pytest.fixture
def turnstile():
    """Makes a URL that answers its first requests at once, as many as are said, and holds all others until the test ends; and an event that
    says that one is held."""
    ended, listeners = threading.Event(), []

    def make(count):
        places, holds = threading.Semaphore(count), threading.Event()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                if not places.acquire(blocking=False):
                    holds.set()
                    ended.wait()
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_):
                pass

        listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        listener.daemon_threads = True
        threading.Thread(target=listener.serve_forever, daemon=True).start()
        listeners.append(listener)
        return f"http://127.0.0.1:{listener.server_port}/", holds

    yield make
    ended.set()
    for listener in listeners:
        listener.shutdown()
        listener.server_close()
