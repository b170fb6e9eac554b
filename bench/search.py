"""Search over 10,000 trial components by a parameter, a metric, a tag and more, and what keeping the index costs a write."""

import random
from datetime import datetime, timezone

from harness import load, options, queries, recording, report
from harness.modelyard import Modelyard

COMPONENTS = 10_000
CONNECTIONS = 16
QUERIES = 200
LIMIT_MS = 20
# A number of as many digits as those that take its place.
MARK = "9999999"
FIRST = 1_000_000
WORDS = ["adam", "sgd", "lion", "rmsprop"]


def component(name, indexed):
    """The request of a component with ten parameters; those that are not indexed are artifacts of the same size."""
    numbers = {f"number-{index}": index / 7 for index in range(7)}
    texts = {"kind": f"k-{MARK}", "optimizer": "adam"}
    if not indexed:
        artifacts = {key: {"Value": str(value)} for key, value in {**numbers, **texts, "index": MARK}.items()}
        return {"TrialComponentName": name, "InputArtifacts": artifacts}
    parameters = {key: {"NumberValue": value} for key, value in numbers.items()}
    parameters.update({key: {"StringValue": value} for key, value in texts.items()})
    parameters["index"] = {"NumberValue": int(MARK)}
    tags = [{"Key": "owner", "Value": f"o-{MARK}"}]
    return {"TrialComponentName": name, "Parameters": parameters, "Tags": tags}


def fill(server, folder):
    """Puts components and a metric of each through the API; creates per second, with and without something to index."""
    sagemaker, metrics = server.client("sagemaker"), server.client("sagemaker-metrics")
    changes = [(MARK, str(FIRST + index)) for index in range(COMPONENTS)]
    rates = {}

    def send(captured, word, some):
        written = recording.write_many(folder / word, captured, "sagemaker", server.connection, some)
        result = load.replay(server.address, written, CONNECTIONS, 600, once=True)
        rates[word] = result["requests"] / result["seconds"]

    plain = recording.capture(sagemaker, "create_trial_component", **component(f"plain-{MARK}", False))
    send(plain, "plain", changes[: COMPONENTS // 10])
    create = recording.capture(sagemaker, "create_trial_component", **component(f"run-{MARK}", True))
    send(create, "indexed", changes)
    at = datetime.fromtimestamp(1_770_000_000, timezone.utc)
    points = [{"MetricName": name, "Timestamp": at, "Step": 1, "Value": float(MARK)} for name in ("loss", "accuracy")]
    put = recording.capture(metrics, "batch_put_metrics", TrialComponentName=f"run-{MARK}", MetricData=points)
    send(put, "metrics", changes)
    return rates


def searches():
    """Searches that find ten rows or fewer, and some that find many, as (name, operation, requests)."""
    chosen = random.Random(1)

    def requests(name, operator, value, **more):
        found = []
        for _ in range(QUERIES):
            filters = [{"Name": name, "Operator": operator, "Value": value(FIRST + chosen.randrange(COMPONENTS))}]
            found.append({"Resource": "ExperimentTrialComponent", "SearchExpression": {"Filters": filters}, **more})
        return found

    last = lambda _: str(FIRST + COMPONENTS - 10)
    rows = [
        ("one parameter, a number", requests("Parameters.index", "Equals", str)),
        ("one parameter, a text", requests("Parameters.kind", "Equals", lambda at: f"k-{at}")),
        ("a parameter above a bound, 9 rows", requests("Parameters.index", "GreaterThan", last)),
        ("a metric above a bound, 9 rows", requests("Metrics.loss.Last", "GreaterThan", last)),
        ("the same, sorted by the metric", requests("Metrics.loss.Max", "GreaterThan", last, SortBy="Metrics.loss.Max")),
        ("one tag", requests("Tags.owner", "Equals", lambda at: f"o-{at}")),
        ("one name", requests("TrialComponentName", "Equals", lambda at: f"run-{at}")),
        ("a parameter of all, the first 10 rows", requests("Parameters.optimizer", "Equals", lambda _: "adam", MaxResults=10)),
    ]
    return [(name, "search", found) for name, found in rows]


def main():
    run = options.parse(__doc__)
    report.heading("Search")
    with Modelyard(run.modelyard, run.folder) as server, load.Bare(run.folder, "{}") as bare:
        rates = fill(server, run.folder)
        sagemaker = server.client("sagemaker")
        found = sagemaker.search(**searches()[2][2][0])["Results"]
        if len(found) != 9:
            raise SystemExit(f"a search found {len(found)} rows in place of 9")
        results = queries.measure(server, run.folder, sagemaker, searches())
        scan = {"Filters": [{"Name": "DisplayName", "Operator": "Contains", "Value": "1009999"}]}
        scans = [("display", "search", [{"Resource": "ExperimentTrialComponent", "SearchExpression": scan}] * 10)]
        scanned = queries.measure(server, run.folder, sagemaker, scans)["display"]
        limit = load.replay(bare.address, run.folder / "queries", 1, 2)
    queries.show(f"Search over {COMPONENTS} components", results, limit, LIMIT_MS)
    print(f"without an index, by part of the display name: p50 {scanned['p50_ms']:.0f} ms")
    print(
        f"durable requests/s on {CONNECTIONS} connections: {rates['indexed']:.0f} components with ten parameters and a tag, "
        f"{rates['plain']:.0f} with ten artifacts, which are not indexed; {rates['metrics']:.0f} BatchPutMetrics of two metrics"
    )


if __name__ == "__main__":
    main()
