"""InvokeEndpoint on a small scikit-learn model, beside the serving stack of SageMaker's scikit-learn container."""

import importlib.util
import io
import json
import os
import sys
import time
import urllib.request

import joblib
import numpy
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression

from harness import BENCH, load, options, recording, report
from harness.modelyard import SKLEARN_IMAGE, Modelyard, wait
from harness.processes import Process, clean_environment, free_port

CONNECTIONS = (1, 16)
ROUNDS = 3
SECONDS = 1.5
WARM_UP_SECONDS = 0.5
WORKERS = os.cpu_count()
SCRIPT = BENCH / "model/inference.py"


def train():
    """The model as bytes of joblib, and one row as JSON."""
    rows, labels = load_breast_cancer(return_X_y=True)
    model = LogisticRegression(max_iter=10_000).fit(rows, labels)
    buffer = io.BytesIO()
    joblib.dump(model, buffer)
    # The row that the model is least sure of: a wrong answer would differ.
    unsure = numpy.argmin(abs(model.predict_proba(rows)[:, 1] - 0.5))
    return buffer.getvalue(), json.dumps([rows[unsure].tolist()])


def model_alone(folder, row, seconds=1):
    """The script's functions in a loop, without any serving: calls per second of one core, and the answer."""
    specification = importlib.util.spec_from_file_location("inference", SCRIPT)
    script = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(script)
    model = script.model_fn(folder)
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        answer, _ = script.output_fn(script.predict_fn(script.input_fn(row, "application/json"), model), "application/json")
        count += 1
    return count / (time.perf_counter() - started), answer


def deploy(server, model):
    """Creates an endpoint with the model; returns its name and the seconds until it was in service."""
    source = server.upload("bench/model.tar.gz", {"model.joblib": model, "code/inference.py": SCRIPT.read_bytes()})
    sagemaker = server.client("sagemaker")
    environment = {
        "SAGEMAKER_PROGRAM": "inference.py",
        "SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/model/code",
        "SAGEMAKER_MODEL_SERVER_WORKERS": str(WORKERS),
    }
    container = {"Image": SKLEARN_IMAGE, "ModelDataUrl": source, "Environment": environment}
    sagemaker.create_model(ModelName="bench", ExecutionRoleArn=server.role, PrimaryContainer=container)
    variant = {"VariantName": "AllTraffic", "ModelName": "bench", "InitialInstanceCount": 1, "InstanceType": "ml.m5.large"}
    sagemaker.create_endpoint_config(EndpointConfigName="bench", ProductionVariants=[variant])
    started = time.perf_counter()
    sagemaker.create_endpoint(EndpointName="bench", EndpointConfigName="bench")

    def settled():
        endpoint = sagemaker.describe_endpoint(EndpointName="bench")
        return endpoint if endpoint["EndpointStatus"] in ("InService", "Failed") else None

    endpoint = wait("the endpoint is in service", settled)
    if endpoint["EndpointStatus"] != "InService":
        raise SystemExit(f"the endpoint failed: {endpoint.get('FailureReason')}")
    return time.perf_counter() - started


def container(folder, model):
    """SageMaker's stack on the same model and script, started as the container does, but without its nginx in front."""
    (folder / "opt/model").mkdir(parents=True)
    (folder / "opt/model/model.joblib").write_bytes(model)
    address = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "gunicorn", "--timeout", "60", "-k", "gevent", "-b", address]
    command += ["--worker-connections", 1000 * WORKERS, "-w", WORKERS, "--log-level", "info", "--no-control-socket", "sagemaker_sklearn:app"]
    environment = clean_environment(
        PYTHONPATH=os.pathsep.join([str(BENCH / "peers"), str(SCRIPT.parent)]),
        PYTHONWARNINGS="ignore",
        SAGEMAKER_BASE_DIR=folder / "opt",
        SAGEMAKER_PROGRAM="inference.py",
        SAGEMAKER_SUBMIT_DIRECTORY=SCRIPT.parent,
        SAGEMAKER_MODEL_SERVER_WORKERS=WORKERS,
    )
    process = Process(command, folder / "gunicorn.log", environment)
    try:
        ready = process.wait_until_answers(address, "/ping")
    except BaseException:
        process.end()
        raise
    return process, address, ready


def record(server, folder, row, expected):
    """The request for us and for the container; both must give the model's answer first."""
    runtime = server.client("sagemaker-runtime")
    call = {"EndpointName": "bench", "ContentType": "application/json", "Accept": "application/json", "Body": row}
    answer = runtime.invoke_endpoint(**call)["Body"].read().decode()
    if json.loads(answer) != json.loads(expected):
        raise SystemExit(f"the endpoint says {answer}, the model {expected}")
    method, url, headers, body = recording.capture(runtime, "invoke_endpoint", **call)
    ours = recording.write(folder / "invoke", (method, url, headers, body))
    theirs = recording.write(folder / "invocations", (method, url[: url.index("/endpoints/")] + "/invocations", headers, body))
    return ours, theirs


def check_container(address, row, expected):
    """The container's answer must be the model's, too."""
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    request = urllib.request.Request(f"http://{address}/invocations", row.encode(), headers)
    answer = urllib.request.urlopen(request, timeout=30).read().decode()
    if json.loads(answer) != json.loads(expected):
        raise SystemExit(f"the container says {answer}, the model {expected}")


def main():
    chosen = options.parse(__doc__)
    report.heading("InvokeEndpoint")
    model, row = train()
    process, container_address, container_ready = container(chosen.folder, model)
    with process, Modelyard(chosen.modelyard, chosen.folder) as server:
        alone, expected = model_alone(chosen.folder / "opt/model", row)
        check_container(container_address, row, expected)
        in_service = deploy(server, model)
        with load.Bare(chosen.folder, expected) as bare:
            ours, theirs = record(server, chosen.folder, row, expected)
            peers = {"modelyard": (server.address, ours), "container": (container_address, theirs), "bare": (bare.address, ours)}
            results = {}
            for attempt in range(ROUNDS + 1):
                for connections in CONNECTIONS:
                    for name, (address, requests) in peers.items():
                        seconds = SECONDS if attempt else WARM_UP_SECONDS
                        result = load.replay(address, requests, connections, seconds)
                        if attempt:
                            results.setdefault((connections, name), []).append(result)
        server.client("sagemaker").delete_endpoint(EndpointName="bench")
    results = {key: load.combined(rounds) for key, rounds in results.items()}
    names = {"modelyard": "modelyard (signature checked, sandboxed)", "container": "gunicorn + sagemaker_containers", "bare": "limit: bare hyper server"}
    rows = []
    for connections in CONNECTIONS:
        base = results[connections, "container"]["rate"]
        for name, shown in names.items():
            result = results[connections, name]
            rows.append(
                [
                    f"{shown}, {connections} connection{'s' * (connections > 1)}",
                    f"{result['rate']:.0f}",
                    report.ratio(result["rate"], base),
                    f"{result['p50_ms']:.2f}",
                    f"{result['p99_ms']:.2f}",
                ]
            )
    report.table([f"{WORKERS} workers each", "requests/s", "of the container", "p50 ms", "p99 ms"], rows)
    print(f"limit: the script's functions alone: {alone:.0f} calls/s of one core, {1000 / alone:.3f} ms each")
    print(f"ready: CreateEndpoint to InService {in_service:.1f} s, gunicorn to its first answer {container_ready:.1f} s", end=", ")
    print(f"ratio {report.ratio(container_ready, in_service)}")
    report.verdict("CreateEndpoint to InService, environment at hand", in_service, 5, "s")


if __name__ == "__main__":
    main()
