"""The first request to a serverless endpoint that sleeps, native and Python with and without a process that stands by, beside a bare start of the interpreter with scikit-learn."""

import json
import statistics
import subprocess
import sys
import time

from harness import options, report
from harness.modelyard import SKLEARN_IMAGE, Modelyard, wait
from harness.models import SUBJECTS, linear_model
from harness.processes import all_that_mention, children, clean_environment, cpu_seconds

WAKES = 9
NATIVE_LIMIT_MS = 50
PYTHON_LIMIT_MS = 1500
# Seconds of processor time that all servers together take in a second while nobody asks them.
MOST_CPU_AT_REST = 0.1

def deploy(server, name, image, files, variables):
    """Creates a serverless endpoint that sleeps after a second."""
    source = server.upload(f"bench/{name}.tar.gz", files)
    variables = {"MODELYARD_SERVERLESS_IDLE_SECONDS": "1", **variables}
    container = {"Image": image, "ModelDataUrl": source, "Environment": variables}
    server.serve(name, container, ServerlessConfig={"MemorySizeInMB": 1024, "MaxConcurrency": 4})


def rest(folder):
    """Waits until the processes of the run use next to no processor time: what stands by has done its imports."""

    def used():
        pids = set()
        for pid in all_that_mention(folder):
            try:
                pids |= {pid, *children(pid)}
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has ended
        return cpu_seconds(pids)

    def is_at_rest():
        before = used()
        time.sleep(1)
        return abs(used() - before) < MOST_CPU_AT_REST

    wait("the run is at rest", is_at_rest, seconds=300)


def wake(server, folder, name, body, content_type):
    """Milliseconds of the first request after a sleep, and of the one after it."""
    sagemaker, runtime = server.client("sagemaker"), server.client("sagemaker-runtime")

    def sleeps():
        [variant] = sagemaker.describe_endpoint(EndpointName=name)["ProductionVariants"]
        return variant["CurrentInstanceCount"] == 0

    def ask():
        started = time.perf_counter()
        runtime.invoke_endpoint(EndpointName=name, Body=body, ContentType=content_type, Accept=content_type)["Body"].read()
        return (time.perf_counter() - started) * 1000

    wait(f"{name} sleeps", sleeps, seconds=60)
    rest(folder)
    return ask(), ask()


def bare_start():
    """Milliseconds that the interpreter alone takes with the model's imports."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import sklearn.linear_model, joblib"], check=True, env=clean_environment())
    return (time.perf_counter() - started) * 1000


def main():
    chosen = options.parse(__doc__)
    report.heading("The first request after a sleep")
    boosted = SUBJECTS[0]
    _, trees = boosted.trained(chosen.folder)
    row = json.loads((chosen.folder / boosted.rows).read_text())[0][0]
    sides = {"native": [], "python": [], "alone": [], "bare": []}
    without = chosen.folder / "without-standbys"
    (without / "data").mkdir(parents=True)
    (without / "data/modelyard.toml").write_text("[endpoints]\nserverless_standbys = 0\n")
    with Modelyard(chosen.modelyard, chosen.folder) as server, Modelyard(chosen.modelyard, without) as other:
        deploy(server, "native", boosted.image, {boosted.file: trees}, {"MODELYARD_ENGINE": "native"})
        deploy(server, "python", SKLEARN_IMAGE, linear_model(), {"SAGEMAKER_PROGRAM": "inference.py"})
        deploy(other, "alone", SKLEARN_IMAGE, linear_model(), {"SAGEMAKER_PROGRAM": "inference.py"})
        for _ in range(WAKES):
            sides["native"].append(wake(server, chosen.folder, "native", row, "text/csv"))
            sides["python"].append(wake(server, chosen.folder, "python", "[[1, 1]]", "application/json"))
            sides["alone"].append(wake(other, chosen.folder, "alone", "[[1, 1]]", "application/json"))
            sides["bare"].append((bare_start(), 0))
        for owner, name in ((server, "native"), (server, "python"), (other, "alone")):
            owner.client("sagemaker").delete_endpoint(EndpointName=name)
    firsts = {name: [first for first, _ in times] for name, times in sides.items()}
    rows = []
    shown_sides = {
        "native": "native engine",
        "python": "Python, scikit-learn",
        "alone": "the same without a process that stands by",
        "bare": "limit: bare interpreter, imports",
    }
    for name, shown in shown_sides.items():
        then = statistics.median(second for _, second in sides[name])
        rows.append([shown, f"{statistics.median(firsts[name]):.0f}", f"{max(firsts[name]):.0f}", f"{then:.1f}" if then else ""])
    report.table(["first request", "median ms", "longest ms", "next request ms"], rows)
    report.verdict("native engine from zero", statistics.median(firsts["native"]), NATIVE_LIMIT_MS, "ms")
    report.verdict("Python from zero", statistics.median(firsts["python"]), PYTHON_LIMIT_MS, "ms")
    print(f"Python: {report.ratio(statistics.median(firsts['python']), statistics.median(firsts['bare']))} of the bare start")


if __name__ == "__main__":
    main()
