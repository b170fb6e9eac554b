"""The server is killed without warning: nothing that was acknowledged is missing, and what ran goes on."""

import concurrent.futures
import json

from conftest import Endpoints, Jobs, poll

def helpers(server):
    role = server.client("iam").get_role(RoleName="ModelyardExecutionRole")["Role"]["Arn"]
    server.client("s3").create_bucket(Bucket="durable")
    return Jobs(server, "durable", role), Endpoints(server, "durable", role)


def test_a_job_outlives_the_server(own_server):
    jobs, _ = helpers(own_server)
    jobs.start(
        "survivor",
        """
        import signal, sys, threading
        def finish(*_):
            open("/opt/ml/model/m", "w").write("whole")
            print("finishing", flush=True)
            sys.exit(0)
        signal.signal(signal.SIGUSR1, finish)
        print("started", flush=True)
        threading.Event().wait(6)
        finish()
        """,
    )
    jobs.wait_for_line("survivor", "started")
    own_server.kill()
    own_server.start()
    job = jobs.wait("survivor")
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    assert jobs.lines("survivor").count("started") == 1, "the job ran once"
    statuses = [transition["Status"] for transition in job["SecondaryStatusTransitions"]]
    assert statuses == ["Starting", "Downloading", "Training", "Uploading", "Completed"]
    head = jobs.s3.head_object(Bucket="durable", Key="models/survivor/output/model.tar.gz")
    assert head["ContentLength"] > 0


def test_acknowledged_writes_survive(own_server):
    jobs, _ = helpers(own_server)
    s3 = own_server.client("s3")
    acknowledged = []

    def put(number):
        try:
            s3.put_object(Bucket="durable", Key=f"stream/{number:04}", Body=b"%d" % number * 1000)
            acknowledged.append(number)
        except Exception:
            # Cut off by the kill: not acknowledged.
            pass

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(put, number) for number in range(2000)]
        poll(lambda: len(acknowledged) > 300, "some objects are written")
        own_server.kill()
        concurrent.futures.wait(futures)
    own_server.start()
    s3 = own_server.client("s3")
    assert len(acknowledged) < 2000, "the kill came in the middle"
    for number in acknowledged:
        assert s3.get_object(Bucket="durable", Key=f"stream/{number:04}")["Body"].read() == b"%d" % number * 1000
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket="durable", Prefix="stream/"):
        for entry in page.get("Contents", []):
            number = int(entry["Key"].split("/")[1])
            assert entry["Size"] == len(b"%d" % number) * 1000, "an object is whole or not there"


def test_queued_jobs_survive(own_server):
    jobs, _ = helpers(own_server)
    names = [f"queued-{number}" for number in range(6)]
    for name in names:
        jobs.start(name, "print('ran')")
    own_server.kill()
    own_server.start()
    for name in names:
        job = jobs.wait(name)
        assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
        assert jobs.lines(name).count("ran") == 1


def test_an_endpoint_outlives_the_server(own_server):
    _, endpoints = helpers(own_server)
    script = """
    import os
    def model_fn(model_dir): return os.getpid()
    def predict_fn(data, model): return {"pid": model, "started": os.stat("/proc/self").st_ctime_ns}
    """
    assert endpoints.deploy("steady", script)["EndpointStatus"] == "InService"
    before = json.load(endpoints.invoke("steady", b"1")["Body"])
    own_server.kill()
    own_server.start()
    endpoints = helpers_again(own_server)

    def answer():
        try:
            return json.load(endpoints.invoke("steady", b"1")["Body"])
        except endpoints.runtime.exceptions.ClientError:
            return None

    assert poll(answer, "the endpoint answers again")["pid"] == before["pid"], "the same worker serves"


def helpers_again(server):
    return Endpoints(server, "durable", None)


def test_no_process_is_left_behind(own_server):
    """A stop that was asked for while no server ran still ends the job, and its processes with it."""
    jobs, _ = helpers(own_server)
    jobs.start("orphan", "import threading; print('started', flush=True); threading.Event().wait()")
    jobs.wait_for_line("orphan", "started")
    jobs.sagemaker.stop_training_job(TrainingJobName="orphan")
    own_server.kill()
    own_server.start()
    assert jobs.wait("orphan")["TrainingJobStatus"] == "Stopped"
    assert not processes_of(own_server.data_dir), "nothing runs under the data directory"


def processes_of(data_dir):
    import pathlib

    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if str(data_dir) in command and "\0supervise\0" in command:
                found.append(command)
    return found
