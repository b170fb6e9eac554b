"""InvokeEndpoint on scikit-learn models in Python, with requests that wait answered together and one by one."""

import io
import json

import joblib
import numpy
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from harness import load, options, recording, report
from harness.modelyard import SKLEARN_IMAGE, Modelyard, wait

CONNECTIONS = (1, 16, 64)
ROUNDS = 3
SECONDS = 1.5
WARM_UP_SECONDS = 0.5
ROWS = 50
# What one connection may lose: nobody waits where nobody else does.
MOST_LOSS_PERCENT = 5


def subjects():
    """The models, and the word that has them joined; a forest needs none."""
    rows, labels = load_breast_cancer(return_X_y=True)
    return {
        "forest": (RandomForestClassifier(n_estimators=100, random_state=1).fit(rows, labels), "auto"),
        "linear": (LogisticRegression(max_iter=10_000).fit(rows, labels), "rows"),
    }, rows[numpy.linspace(0, len(rows) - 1, ROWS).astype(int)]


def deploy(server, name, model, wish):
    """An endpoint of the model without a script, in Python."""
    buffer = io.BytesIO()
    joblib.dump(model, buffer)
    source = server.upload(f"bench/{name}.tar.gz", {"model.joblib": buffer.getvalue()})
    sagemaker = server.client("sagemaker")
    variables = {"MODELYARD_ENGINE": "python", "MODEL_HOST_BATCH": wish}
    container = {"Image": SKLEARN_IMAGE, "ModelDataUrl": source, "Environment": variables}
    sagemaker.create_model(ModelName=name, ExecutionRoleArn=server.role, PrimaryContainer=container)
    variant = {"VariantName": "AllTraffic", "ModelName": name, "InitialInstanceCount": 1, "InstanceType": "ml.m5.large"}
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)

    def settled():
        endpoint = sagemaker.describe_endpoint(EndpointName=name)
        return endpoint if endpoint["EndpointStatus"] in ("InService", "Failed") else None

    endpoint = wait(f"{name} is in service", settled, seconds=120)
    if endpoint["EndpointStatus"] != "InService":
        raise SystemExit(f"{name} failed: {endpoint.get('FailureReason')}")


def record(server, folder, name, model, rows):
    """A request for each row; each must give the model's own answer first."""
    runtime, captured = server.client("sagemaker-runtime"), []
    for row in rows.tolist():
        call = {"EndpointName": name, "ContentType": "application/json", "Accept": "application/json", "Body": json.dumps([row])}
        answer = json.load(runtime.invoke_endpoint(**call)["Body"])
        if answer != model.predict(numpy.array([row], "float32")).tolist():
            raise SystemExit(f"{name} says {answer}")
        captured.append(recording.capture(runtime, "invoke_endpoint", **call))
    return recording.write_each(folder / name, captured)


def measure(server, folder, kind, model, wish, rows):
    """Both ways in turns."""
    requests = {}
    for way, word in (("together", wish), ("one by one", "off")):
        name = f"{kind}-{word}"
        deploy(server, name, model, word)
        requests[way] = record(server, folder, name, model, rows)
    results = {}
    for attempt in range(ROUNDS + 1):
        for connections in CONNECTIONS:
            for way, recorded in requests.items():
                result = load.replay(server.address, recorded, connections, SECONDS if attempt else WARM_UP_SECONDS)
                if attempt:
                    results.setdefault((connections, way), []).append(result)
    for word in (wish, "off"):
        server.client("sagemaker").delete_endpoint(EndpointName=f"{kind}-{word}")
    return {key: load.combined(rounds) for key, rounds in results.items()}


def show(kind, results):
    """The table and the verdict."""
    rows = []
    for connections in CONNECTIONS:
        base = results[connections, "one by one"]["rate"]
        for way in ("together", "one by one"):
            result = results[connections, way]
            rows.append([f"{kind}, {way}, {connections} connection{'s' * (connections > 1)}", f"{result['rate']:.0f}",
                         report.ratio(result["rate"], base), f"{result['p50_ms']:.2f}", f"{result['p99_ms']:.2f}"])
    report.table([kind, "requests/s", "of one by one", "p50 ms", "p99 ms"], rows)
    alone, together = (results[1, way]["rate"] for way in ("one by one", "together"))
    report.verdict(f"{kind}: what one connection loses", max(0.0, 100 * (1 - together / alone)), MOST_LOSS_PERCENT, "%")


def main():
    chosen = options.parse(__doc__)
    report.heading("InvokeEndpoint, requests answered together")
    models, rows = subjects()
    with Modelyard(chosen.modelyard, chosen.folder) as server:
        for kind, (model, wish) in models.items():
            show(kind, measure(server, chosen.folder, kind, model, wish, rows))


if __name__ == "__main__":
    main()
