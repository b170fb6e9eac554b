"""The server killed under load: how long until every endpoint answers again, native and Python."""

import statistics
import threading
import time

from harness import options, report
from harness.modelyard import SKLEARN_IMAGE, Modelyard, wait
from harness.models import SUBJECTS, linear_model
from harness.processes import all_that_mention

KILLS = 5
PYTHON_ENDPOINTS = 4
LIMIT_SECONDS = 2


def ask(runtime, name):
    """One request of an endpoint; raises what the client raises."""
    body, kind = ("[[1, 1]]", "application/json") if name.startswith("python") else (",".join(["0.5"] * 30), "text/csv")
    return runtime.invoke_endpoint(EndpointName=name, Body=body, ContentType=kind, Accept=kind)["Body"].read()


def load(server, name, stop, counts):
    """Requests one after another until told to stop; failures are counted, since the server is killed under them."""
    runtime = server.client("sagemaker-runtime")
    while not stop.is_set():
        try:
            ask(runtime, name)
            counts["answered"] += 1
        except Exception:
            counts["failed"] += 1
            stop.wait(0.01)


def main():
    chosen = options.parse(__doc__)
    report.heading("Killed under load")
    boosted = SUBJECTS[0]
    _, trees = boosted.trained(chosen.folder)
    server = Modelyard(chosen.modelyard, chosen.folder)
    address = server.address
    times = {"health": [], "first": [], "all": []}
    try:
        source = server.upload("bench/native.tar.gz", {boosted.file: trees})
        server.serve("native", {"Image": boosted.image, "ModelDataUrl": source, "Environment": {"MODELYARD_ENGINE": "native"}})
        source = server.upload("bench/python.tar.gz", linear_model())
        names = ["native"] + [f"python-{number}" for number in range(PYTHON_ENDPOINTS)]
        for name in names[1:]:
            environ = {"SAGEMAKER_PROGRAM": "inference.py", "SAGEMAKER_MODEL_SERVER_WORKERS": "1"}
            server.serve(name, {"Image": SKLEARN_IMAGE, "ModelDataUrl": source, "Environment": environ})
        replicas = {pid for pid in all_that_mention(server.data_dir) if pid != server.process.pid}
        for _ in range(KILLS):
            stop, counts = threading.Event(), {"answered": 0, "failed": 0}
            threads = [threading.Thread(target=load, args=(server, name, stop, counts)) for name in names]
            for thread in threads:
                thread.start()
            wait("the load runs", lambda: counts["answered"] > 100)
            killed_at = time.perf_counter()
            server.process.kill()
            server.process.wait()
            server = Modelyard(chosen.modelyard, chosen.folder, listen=address)
            times["health"].append(time.perf_counter() - killed_at)
            runtime, sagemaker = server.client("sagemaker-runtime"), server.client("sagemaker")
            waiting = list(names)
            while waiting:
                if time.perf_counter() - killed_at > 60:
                    raise SystemExit(f"not back within a minute: {', '.join(waiting)}")
                for name in list(waiting):
                    try:
                        ask(runtime, name)
                    except Exception:
                        continue
                    if sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"] == "InService":
                        waiting.remove(name)
                        if len(waiting) == len(names) - 1:
                            times["first"].append(time.perf_counter() - killed_at)
            times["all"].append(time.perf_counter() - killed_at)
            stop.set()
            for thread in threads:
                thread.join()
        kept = replicas & set(all_that_mention(server.data_dir))
        for name in names:
            server.remove(name)
    finally:
        server.end()
    shown = {"health": "the health check", "first": "the first endpoint", "all": f"all {len(names)} endpoints InService and asked"}
    rows = [[text, *(f"{1000 * of(times[key]):.0f}" for of in (statistics.median, max))] for key, text in shown.items()]
    report.table([f"from the kill to an answer of, {KILLS} kills", "median ms", "most ms"], rows)
    print(f"processes of replicas that lived through all kills: {len(kept)} of {len(replicas)}")
    report.verdict("all endpoints answer again", max(times["all"]), LIMIT_SECONDS, "s")


if __name__ == "__main__":
    main()
