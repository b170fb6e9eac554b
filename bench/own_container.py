"""InvokeEndpoint on a container of one's own, beside requests straight to the same container."""

import io
import re
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from harness import load, options, recording, report
from harness.modelyard import Modelyard, wait
from harness.processes import answers, free_port

IMAGE = "localhost/bench-own-container:1"
CONNECTIONS = (1, 16, 64)
ROUNDS = 5
SECONDS = 1.5
WARM_UP_SECONDS = 0.5
LIMIT_MICROSECONDS = 150
BODY = "1,2,3,4"


def build(podman):
    """An image with the bare HTTP server as its `serve`."""
    server = Path(load.binary())
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        listed = subprocess.run(["ldd", server], capture_output=True, text=True, check=True).stdout
        for path in {"/bin/busybox", *re.findall(r"(/\S+) \(0x", listed)}:
            tar.add(Path(path).resolve(), arcname=path.lstrip("/"))
        tar.add(server, arcname="bin/load")
        link = tarfile.TarInfo("bin/sh")
        link.type, link.linkname = tarfile.SYMTYPE, "busybox"
        tar.addfile(link)
        script = b'#!/bin/sh\nexec /bin/load bare --listen "0.0.0.0:$SAGEMAKER_BIND_TO_PORT" --body 0.5\n'
        serve = tarfile.TarInfo("bin/serve")
        serve.size, serve.mode = len(script), 0o755
        tar.addfile(serve, io.BytesIO(script))
        folder = tarfile.TarInfo("tmp")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o1777
        tar.addfile(folder)
    subprocess.run([*podman, "import", "--quiet", "-", IMAGE], input=packed.getvalue(), check=True, capture_output=True)


def measure(chosen, podman):
    """Results by connections and side."""
    (chosen.folder / "data").mkdir(mode=0o700)
    (chosen.folder / "data/modelyard.toml").write_text(f"[containers]\nengine = 'podman'\noptions = {podman[1:5]}\nruntime = 'runc'\n")
    # The same image on the host's network: nothing is between it and its client.
    port = free_port()
    address = f"127.0.0.1:{port}"
    # Some machines let nobody raise a limit.
    limits = ["--ulimit", "nofile=4096:4096", "--ulimit", "nproc=4096:4096"]
    run = ["run", "--rm", "--detach", *limits, "--network", "host", "--env", f"SAGEMAKER_BIND_TO_PORT={port}", IMAGE, "serve"]
    container = subprocess.run([*podman, *run], check=True, capture_output=True, text=True).stdout.strip()
    try:
        wait("the container answers", lambda: answers(address, "/ping"))
        with Modelyard(chosen.modelyard, chosen.folder) as server, load.Proxy(chosen.folder, address) as proxy:
            server.serve("own", {"Image": IMAGE})
            runtime = server.client("sagemaker-runtime")
            call = {"EndpointName": "own", "ContentType": "text/csv", "Body": BODY}
            if runtime.invoke_endpoint(**call)["Body"].read() != b"0.5":
                raise SystemExit("the container answers something else")
            method, url, headers, body = recording.capture(runtime, "invoke_endpoint", **call)
            ours = recording.write(chosen.folder / "invoke", (method, url, headers, body))
            theirs = recording.write(chosen.folder / "direct", (method, url[: url.index("/endpoints/")] + "/invocations", headers, body))
            results = {}
            for attempt in range(ROUNDS + 1):
                for connections in CONNECTIONS:
                    sides = ("modelyard", server.address, ours), ("proxy", proxy.address, theirs), ("direct", address, theirs)
                    for name, target, requests in sides:
                        result = load.replay(target, requests, connections, SECONDS if attempt else WARM_UP_SECONDS)
                        if attempt:
                            results.setdefault((connections, name), []).append(result)
            server.remove("own")
    finally:
        subprocess.run([*podman, "rm", "--force", "--time", "0", container], capture_output=True)
    return {key: load.combined(rounds) for key, rounds in results.items()}


def main():
    chosen = options.parse(__doc__)
    report.heading("InvokeEndpoint, a container of one's own")
    # Podman wants a short path.
    storage = Path(tempfile.mkdtemp(prefix="podman-"))
    podman = ["podman", "--root", str(storage / "root"), "--runroot", str(storage / "run"), "--runtime", "runc"]
    try:
        build(podman)
        results = measure(chosen, podman)
    finally:
        subprocess.run([*podman[:5], "system", "reset", "--force"], capture_output=True, timeout=60)
        shutil.rmtree(storage, ignore_errors=True)
    names = {
        "modelyard": "modelyard (signature checked, network of its own)",
        "proxy": "limit: a bare hyper proxy to the container below",
        "direct": "limit: the same container on the host's network, directly",
    }
    rows = []
    for connections in CONNECTIONS:
        for name, shown in names.items():
            result = results[connections, name]
            plural = "s" * (connections > 1)
            rows.append([f"{shown}, {connections} connection{plural}", *(f"{result[key]:.{digits}f}" for key, digits in (("rate", 0), ("p50_ms", 3), ("p99_ms", 3)))])
    report.table(["", "requests/s", "p50 ms", "p99 ms"], rows)
    over, least = (results[1, name]["p50_ms"] - results[1, "direct"]["p50_ms"] for name in ("modelyard", "proxy"))
    print(f"median on one connection: {1000 * least:.0f} µs of what Modelyard adds a bare proxy adds, too")
    report.verdict("median on one connection over a direct call", 1000 * over, LIMIT_MICROSECONDS, "µs")


if __name__ == "__main__":
    main()
