"""InvokeEndpoint on models of 100 trees and 30 features in the native engine and in the ONNX engine, beside FastAPI on the same models."""

import contextlib
import json
import os
import time
import urllib.request

from harness import load, options, recording, report
from harness.modelyard import Modelyard
from harness.models import SUBJECTS
from harness.sagemaker_stack import sagemaker_stack
from harness.processes import Process, children, clean_environment, cpu_seconds, free_port

CONNECTIONS = (1, 16, 64)
# Many short ones, in turns: the machine's pace changes from one second to the next.
ROUNDS = int(os.environ.get("ROUNDS", 10))
SECONDS = 0.5
WARM_UP_SECONDS = 0.5
WORKERS = os.cpu_count()


def peer(subject, python, folder):
    """FastAPI under uvicorn, a worker for each processor."""
    address = f"127.0.0.1:{free_port()}"
    port = address.split(":")[1]
    command = [python, "-m", "uvicorn", f"{subject.peer.stem}:app", "--host", "127.0.0.1", "--port", port]
    command += ["--workers", WORKERS, "--no-access-log", "--log-level", "warning"]
    process = Process(command, folder / "uvicorn.log", clean_environment(PYTHONPATH=subject.peer.parent, MODEL_FOLDER=folder))
    try:
        process.wait_until_answers(address, "/ping")
    except BaseException:
        process.end()
        raise
    return process, address


def deploy(server, subject, model):
    """Creates the endpoint; returns the seconds until it was in service."""
    source = server.upload(f"bench/{subject.engine}.tar.gz", {subject.file: model})
    container = {"Image": subject.image, "ModelDataUrl": source, "Environment": {"MODELYARD_ENGINE": subject.engine}}
    return server.serve(subject.name, container)


def check(what, answer, expected):
    """An answer must be the library's, to the last place but one of its precision."""
    if abs(float(answer) - expected) > 1e-6 * max(1, abs(expected)):
        raise SystemExit(f"{what} says {answer}, the library {expected}")


def main():
    chosen = options.parse(__doc__)
    for subject in SUBJECTS:
        measure(chosen, subject)


def measure(chosen, subject):
    """One engine beside its peer."""
    report.heading(f"InvokeEndpoint, {subject.engine} engine")
    python, model = subject.trained(chosen.folder)
    rows = json.loads((chosen.folder / subject.rows).read_text())
    with contextlib.ExitStack() as peers:
        fastapi, fastapi_address = peer(subject, python, chosen.folder)
        peers.enter_context(fastapi)
        theirs = {"fastapi": (fastapi_address, fastapi.process)}
        if subject.script:
            (chosen.folder / "opt/model").mkdir(parents=True)
            (chosen.folder / "opt/model/xgboost-model.ubj").write_bytes(model)
            container, container_address, _ = sagemaker_stack(chosen.folder, subject.script)
            peers.enter_context(container)
            theirs["container"] = (container_address, container.process)
        results, in_service = compared(chosen, subject, model, rows, theirs)
    show(subject, results, in_service)


def compared(chosen, subject, model, rows, peers):
    """Results by connections and side, and the seconds until the endpoint was in service."""
    with Modelyard(chosen.modelyard, chosen.folder) as server:
        # The first one also installs what the engine needs.
        deploy(server, subject, model)
        server.remove(subject.name)
        in_service = deploy(server, subject, model)
        runtime = server.client("sagemaker-runtime")
        captured = []
        for row, expected in rows:
            call = {"EndpointName": subject.name, "ContentType": "text/csv", "Accept": "text/csv", "Body": row}
            if len(captured) < 20:
                check("the endpoint", runtime.invoke_endpoint(**call)["Body"].read(), expected)
                for name, (address, _) in peers.items():
                    kinds = {"Content-Type": "text/csv", "Accept": "text/csv"}
                    request = urllib.request.Request(f"http://{address}/invocations", row.encode(), kinds)
                    check(name, urllib.request.urlopen(request, timeout=30).read(), expected)
            captured.append(recording.capture(runtime, "invoke_endpoint", **call))
        # Different rows, so that the processor does not learn the way of one through the trees.
        ours = recording.write_each(chosen.folder / "invoke", captured)
        elsewhere = [(method, url[: url.index("/endpoints/")] + "/invocations", headers, body) for method, url, headers, body in captured]
        theirs = recording.write_each(chosen.folder / "invocations", elsewhere)
        with load.Bare(chosen.folder, str(rows[0][1])) as bare:
            sides = {
                "modelyard": (server.address, ours, server.process),
                **{name: (address, theirs, process) for name, (address, process) in peers.items()},
                "bare": (bare.address, ours, bare.process),
            }
            results = {}
            for attempt in range(ROUNDS + 1):
                for connections in CONNECTIONS:
                    for name, (address, requests, process) in sides.items():
                        before = cpu_seconds([process.pid, *children(process.pid)])
                        result = load.replay(address, requests, connections, SECONDS if attempt else WARM_UP_SECONDS)
                        result["cpu_seconds"] = cpu_seconds([process.pid, *children(process.pid)]) - before
                        if attempt:
                            results.setdefault((connections, name), []).append(result)
        server.remove(subject.name)
    return results, in_service


def show(subject, results, in_service):
    """The table and the verdicts."""
    combined = {key: load.combined(rounds) for key, rounds in results.items()}
    names = {
        "modelyard": "modelyard (signature checked)",
        "fastapi": "FastAPI, uvicorn",
        "container": "gunicorn + sagemaker_containers",
        "bare": "limit: bare hyper server",
    }
    names = {name: shown for name, shown in names.items() if (1, name) in combined}
    rows = []
    for connections in CONNECTIONS:
        limit = combined[connections, "bare"]["rate"]
        for name, shown in names.items():
            result = combined[connections, name]
            cpu = sum(one["cpu_seconds"] for one in results[connections, name])
            rows.append(
                [
                    f"{shown}, {connections} connection{'s' * (connections > 1)}",
                    f"{result['rate']:.0f}",
                    report.ratio(result["rate"], limit),
                    f"{result['p50_ms']:.2f}",
                    f"{result['p99_ms']:.2f}",
                    f"{cpu / result['requests'] * 1e6:.0f}",
                ]
            )
    report.table([f"{WORKERS} CPUs", "requests/s", "of the limit", "p50 ms", "p99 ms", "CPU µs a request"], rows)
    for connections in CONNECTIONS:
        ours = combined[connections, "modelyard"]["rate"]
        ratios = (f"{report.ratio(ours, combined[connections, name]['rate'])} of {shown}" for name, shown in names.items() if name != "modelyard")
        print(f"{connections} connections: {', '.join(ratios)}")
    over = combined[1, "modelyard"]["p99_ms"] - combined[1, "bare"]["p99_ms"]
    report.verdict("99th percentile on one connection over the bare server", over, 1, "ms")
    report.verdict("CreateEndpoint to InService", in_service * 1000, subject.most_ms, "ms")


if __name__ == "__main__":
    main()
