"""InvokeEndpoint on a small scikit-learn model, beside the serving stack of SageMaker's scikit-learn container and FastAPI."""

import concurrent.futures
import importlib.util
import io
import json
import math
import os
import statistics
import time
import urllib.request

import joblib
import numpy
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression

from harness import BENCH, environments, load, options, recording, report
from harness.modelyard import SKLEARN_IMAGE, Modelyard
from harness.processes import (
    Process, all_that_mention, children, clean_environment, cpu_seconds, free_port, proportional_bytes,
)
from harness.sagemaker_stack import WORKERS, nginx_in_front, sagemaker_stack

CONNECTIONS = (1, 16, 64)
# Many short ones, in turns: the machine's pace changes from one second to the next.
ROUNDS = 10
SECONDS = 0.5
WARM_UP_SECONDS = 0.5
SCRIPT = BENCH / "model/inference.py"
# The same numeric packages as for the others: the model's time must not differ.
NUMERIC = ["joblib==1.6.0", "numpy==1.26.4", "scikit-learn==1.5.2", "scipy==1.17.1"]
FASTAPI = [*NUMERIC, "fastapi==0.165.0", "uvicorn==0.54.0", "httptools==0.9.0", "uvloop==0.23.0"]
# How much memory may grow under constant load.
GROWTH_PERCENT = 1


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


# The endpoint whose requests are answered together, for which the script's rows must not depend on each other.
TOGETHER = "bench-together"


def deploy(server, model, name="bench", **variables):
    """Creates an endpoint with the model; returns the seconds until it was in service."""
    source = server.upload("bench/model.tar.gz", {"model.joblib": model, "code/inference.py": SCRIPT.read_bytes()})
    environment = {
        "SAGEMAKER_PROGRAM": "inference.py",
        "SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/model/code",
        "SAGEMAKER_MODEL_SERVER_WORKERS": str(WORKERS),
        **variables,
    }
    return server.serve(name, {"Image": SKLEARN_IMAGE, "ModelDataUrl": source, "Environment": environment})


def container(folder, model):
    """SageMaker's stack on the same model and script."""
    (folder / "opt/model").mkdir(parents=True)
    (folder / "opt/model/model.joblib").write_bytes(model)
    return sagemaker_stack(folder, SCRIPT)


def bare_functions(folder):
    """The script's functions in as many processes behind a bare server."""
    python = environments.environment("fastapi", FASTAPI) / "bin/python"
    environment = clean_environment(SCRIPT_DIRECTORY=SCRIPT.parent, MODEL_DIRECTORY=folder / "opt/model")
    return load.Hand(folder, [python, BENCH / "peers/bare_sklearn.py"], WORKERS, environment)


def fastapi(folder):
    """FastAPI under uvicorn on the container's copy of the model, with as many workers."""
    python = environments.environment("fastapi", FASTAPI) / "bin/python"
    address = f"127.0.0.1:{free_port()}"
    command = [python, "-m", "uvicorn", "fastapi_sklearn:app", "--host", "127.0.0.1", "--port", address.split(":")[1]]
    command += ["--workers", WORKERS, "--no-access-log", "--log-level", "warning"]
    environment = clean_environment(
        PYTHONPATH=BENCH / "peers", PYTHONWARNINGS="ignore", SCRIPT_DIRECTORY=SCRIPT.parent, MODEL_DIRECTORY=folder / "opt/model"
    )
    process = Process(command, folder / "fastapi.log", environment)
    try:
        process.wait_until_answers(address, "/ping")
    except BaseException:
        process.end()
        raise
    return process, address


def soak(server, requests, minutes):
    """Constant load on 64 connections; the memory of server and replica must not grow. They share the pages of the program, whose parts of
    either change when a third process begins or ends, so that the limit is one for both together. It counts from two minutes of load on: until
    then buffers grow to what this load needs."""
    seconds = minutes * 60
    supervisors = [pid for pid in all_that_mention(server.folder) if pid != server.process.pid]
    replicas = {found for pid in supervisors for found in (pid, *children(pid))}
    groups = {"server": [server.process.pid], "replica": replicas}
    load.replay(server.address, requests, 64, min(120, seconds / 4))
    looks = {name: [] for name in groups}
    with concurrent.futures.ThreadPoolExecutor(1) as loading:
        replay = loading.submit(load.replay, server.address, requests, 64, seconds)
        while not concurrent.futures.wait([replay], timeout=1).done:
            for name, pids in groups.items():
                looks[name].append(proportional_bytes(pids))
        result = replay.result()
    print(f"{result['requests']} requests in {minutes:g} min on 64 connections, p99 {result['p99_ms']:.2f} ms")
    # A look a second, compared by tenths of the time: what is freed goes back to the system a little later.
    first = last = 0
    for name, all_looks in looks.items():
        tenth = math.ceil(len(all_looks) / 10)
        medians = [statistics.median(all_looks[at : at + tenth]) for at in range(0, len(all_looks), tenth)]
        print(f"{name}, MiB in each tenth of the time: {' '.join(f'{median / 2**20:.1f}' for median in medians)}")
        first, last = first + medians[0], last + medians[-1]
    report.verdict("growth of both together", 100 * (last / first - 1), GROWTH_PERCENT, "%")


def check(what, answer, expected):
    """An answer must be the model's; the number of threads may change the last places of a sum."""
    pairs = zip(json.loads(answer), json.loads(expected), strict=True)
    if not all(math.isclose(said, wanted, rel_tol=1e-12) for said, wanted in pairs):
        raise SystemExit(f"the {what} says {answer}, the model {expected}")


def record(server, folder, row, expected, name="bench"):
    """The request for us and for the container; both must give the model's answer first."""
    runtime = server.client("sagemaker-runtime")
    call = {"EndpointName": name, "ContentType": "application/json", "Accept": "application/json", "Body": row}
    answer = runtime.invoke_endpoint(**call)["Body"].read().decode()
    check("endpoint", answer, expected)
    method, url, headers, body = recording.capture(runtime, "invoke_endpoint", **call)
    ours = recording.write(folder / name, (method, url, headers, body))
    theirs = recording.write(folder / "invocations", (method, url[: url.index("/endpoints/")] + "/invocations", headers, body))
    return ours, theirs


def check_container(address, row, expected):
    """The container's answer must be the model's, too."""
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    request = urllib.request.Request(f"http://{address}/invocations", row.encode(), headers)
    answer = urllib.request.urlopen(request, timeout=30).read().decode()
    check("container", answer, expected)


def main():
    flags = {
        "soak": dict(action="store_true", help="only load an endpoint on 64 connections, and look at the memory"),
        "minutes": dict(type=float, default=10, help="how long a soak takes; the recorded signatures hold for 15 [default: 10]"),
    }
    chosen = options.parse(__doc__, **flags)
    report.heading("InvokeEndpoint")
    model, row = train()
    process, container_address, container_ready = container(chosen.folder, model)
    with process, Modelyard(chosen.modelyard, chosen.folder) as server:
        _, expected = model_alone(chosen.folder / "opt/model", row)
        check_container(container_address, row, expected)
        before = set(all_that_mention(server.data_dir))
        idle_server = proportional_bytes([server.process.pid])
        in_service = deploy(server, model)
        ours, theirs = record(server, chosen.folder, row, expected)
        if chosen.soak:
            process.end()
            return soak(server, ours, chosen.minutes)
        supervisors = [pid for pid in all_that_mention(server.data_dir) if pid not in before]
        # What runs in the sandbox names nothing of this run.
        replica = {found for pid in supervisors for found in (pid, *children(pid))}
        idle_bytes = proportional_bytes(replica), proportional_bytes([server.process.pid]) - idle_server
        before = set(all_that_mention(server.data_dir))
        deploy(server, model, TOGETHER, MODEL_HOST_BATCH="rows")
        together, _ = record(server, chosen.folder, row, expected, TOGETHER)
        supervisors = [pid for pid in all_that_mention(server.data_dir) if pid not in before]
        together_pids = {found for pid in supervisors for found in (pid, *children(pid))}
        other, fastapi_address = fastapi(chosen.folder)
        nginx, stack_address = nginx_in_front(chosen.folder)
        with other, nginx, bare_functions(chosen.folder) as functions, load.Bare(chosen.folder, expected) as bare:
            check_container(fastapi_address, row, expected)
            check_container(stack_address, row, expected)
            check_container(functions.address, row, expected)
            gunicorn_pids = [process.process.pid, *children(process.process.pid)]
            peers = {
                "modelyard": (server.address, ours, [server.process.pid, *replica]),
                "together": (server.address, together, [server.process.pid, *together_pids]),
                "stack": (stack_address, theirs, [nginx.process.pid, *children(nginx.process.pid), *gunicorn_pids]),
                "gunicorn": (container_address, theirs, gunicorn_pids),
                "fastapi": (fastapi_address, theirs, [other.process.pid, *children(other.process.pid)]),
                "functions": (functions.address, theirs, functions.pids()),
                "bare": (bare.address, ours, [bare.process.pid]),
            }
            results, spent, alone = {}, {}, []
            for attempt in range(ROUNDS + 1):
                # Beside the others, as the machine's pace changes.
                alone.append(model_alone(chosen.folder / "opt/model", row)[0])
                for connections in CONNECTIONS:
                    for name, (address, requests, pids) in peers.items():
                        seconds, spent_before = SECONDS if attempt else WARM_UP_SECONDS, cpu_seconds(pids)
                        result = load.replay(address, requests, connections, seconds)
                        if attempt:
                            results.setdefault((connections, name), []).append(result)
                            key = connections, name
                            spent[key] = spent.get(key, 0) + cpu_seconds(pids) - spent_before
        server.remove("bench")
        server.remove(TOGETHER)
    alone = statistics.mean(alone[1:])
    results = {key: load.combined(rounds) for key, rounds in results.items()}
    names = {
        "modelyard": "modelyard (signature checked, sandboxed)",
        "together": "the same with MODEL_HOST_BATCH=rows",
        "stack": "SageMaker's stack: nginx, gunicorn, sagemaker_containers",
        "gunicorn": "that stack without nginx",
        "fastapi": "uvicorn + FastAPI",
        "functions": "limit: the script's functions behind a bare hyper server",
        "bare": "limit: bare hyper server",
    }
    rows = []
    for connections in CONNECTIONS:
        base = results[connections, "stack"]["rate"]
        for name, shown in names.items():
            result = results[connections, name]
            rows.append(
                [
                    f"{shown}, {connections} connection{'s' * (connections > 1)}",
                    f"{result['rate']:.0f}",
                    report.ratio(result["rate"], base),
                    f"{result['p50_ms']:.2f}",
                    f"{result['p99_ms']:.2f}",
                    f"{1e6 * spent[connections, name] / result['requests']:.0f}",
                ]
            )
    report.table([f"{WORKERS} workers each", "requests/s", "of the stack", "p50 ms", "p99 ms", "CPU us"], rows)
    print(f"limit: the script's functions alone: {alone:.0f} calls/s of one core, {1000 / alone:.3f} ms each")
    for connections in CONNECTIONS:
        shares = {name: results[connections, name]["rate"] / os.cpu_count() / alone for name in ("modelyard", "together", "functions")}
        shown = ", ".join(f"{names[name]} {100 * share:.0f} %" for name, share in shares.items())
        print(f"of as many calls on each core, {connections} connection{'s' * (connections > 1)}: {shown}")
    share = 1e6 / alone / (1e6 * spent[16, "modelyard"] / results[16, "modelyard"]["requests"])
    print(f"of the CPU time of a request on 16 connections, the script's functions alone take {100 * share:.0f} %")
    print(f"memory of an idle endpoint: replica {idle_bytes[0] / 2**20:.1f} MiB, in the server {idle_bytes[1] / 2**20:.1f} MiB")
    print(f"ready: CreateEndpoint to InService {in_service:.1f} s, gunicorn to its first answer {container_ready:.1f} s", end=", ")
    print(f"ratio {report.ratio(container_ready, in_service)}")
    report.verdict("CreateEndpoint to InService, environment at hand", in_service, 5, "s")


if __name__ == "__main__":
    main()
