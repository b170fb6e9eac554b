"""BatchPutMetrics, durable points per second, beside mlflow's server on SQLite and bare SQLite; and what reading them takes."""

import json
import sqlite3
import statistics
import time
from datetime import datetime, timezone

from harness import environments, load, options, recording, report
from harness.modelyard import Modelyard
from harness.processes import Process, clean_environment, free_port

CONNECTIONS = (1, 16)
ROUNDS = 2
SECONDS = 2
# Points of one request: as many as BatchPutMetrics takes, which is what the SDK sends; mlflow takes 1,000 as well.
POINTS = 10
MLFLOW_POINTS = (10, 1000)
# Requests of a round that differ: mlflow drops points that it has. More than it takes in a round.
DISTINCT = {10: 3000, 1000: 150}
QUERIES = 20
START = 1_770_000_000


def mlflow_requests(path, address, run, points, first):
    """Requests of log-batch, each with points of its own steps."""
    with path.open("w") as file:
        for index in range(DISTINCT[points]):
            begin = first + index * points
            metrics = [
                {"key": "loss", "value": step / 7, "timestamp": START * 1000 + step, "step": step} for step in range(begin, begin + points)
            ]
            headers = {"Host": address, "Content-Type": "application/json"}
            body = json.dumps({"run_id": run, "metrics": metrics})
            file.write(recording.line("POST", "/api/2.0/mlflow/runs/log-batch", headers, body) + "\n")
    return path


def post(address, path, body):
    import http.client

    host, port = address.split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=60)
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    text = answer.read()
    if answer.status != 200:
        raise SystemExit(f"mlflow answered {answer.status}: {text[:500]}")
    return json.loads(text)


def sqlite_rows_per_second(folder, points):
    """Rows of points, `points` in a transaction that is forced to the disk: the limit of one writer."""
    database = sqlite3.connect(folder / f"rows-{points}.db", isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute("CREATE TABLE points (series INTEGER, at INTEGER, step INTEGER, value REAL)")
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < SECONDS:
        rows = [(1, START + step, step, step / 7) for step in range(count, count + points)]
        database.execute("BEGIN IMMEDIATE")
        database.executemany("INSERT INTO points VALUES (?, ?, ?, ?)", rows)
        database.execute("COMMIT")
        count += points
    elapsed = time.perf_counter() - started
    database.close()
    return count / elapsed


def milliseconds(call):
    taken = []
    for _ in range(QUERIES):
        started = time.perf_counter()
        call()
        taken.append((time.perf_counter() - started) * 1000)
    return statistics.median(taken), max(taken)


def main():
    run = options.parse(__doc__)
    report.heading("experiment_metrics")
    environment = environments.environment("mlflow", ["mlflow==3.17.2"])
    mlflow = f"127.0.0.1:{free_port()}"
    command = [environment / "bin/mlflow", "server", "--backend-store-uri", f"sqlite:///{run.folder}/mlflow.db"]
    command += ["--default-artifact-root", run.folder / "artifacts", "--host", "127.0.0.1", "--port", mlflow.split(":")[1], "--workers", "2"]
    # A worker that is still importing would be killed and begun again, on a busy machine for ever.
    command += ["--uvicorn-opts", "--timeout-worker-healthcheck 60"]
    # A connection to SQLite for each of ours; by default it refuses some of them.
    settings = clean_environment(MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false", MLFLOW_SQLALCHEMYSTORE_POOL_SIZE=max(CONNECTIONS))
    with Modelyard(run.modelyard, run.folder) as server, Process(command, run.folder / "mlflow.log", settings) as peer:
        peer.wait_until_answers(mlflow, "/health", seconds=240)
        created = post(mlflow, "/api/2.0/mlflow/runs/create", {"experiment_id": "0", "start_time": START * 1000})
        mlflow_run = created["run"]["info"]["run_id"]
        sagemaker, metrics = server.client("sagemaker"), server.client("sagemaker-metrics")
        component = sagemaker.create_trial_component(TrialComponentName="bench")["TrialComponentArn"]
        data = [
            {"MetricName": "loss", "Timestamp": datetime.fromtimestamp(START + step, timezone.utc), "Step": step, "Value": step / 7}
            for step in range(POINTS)
        ]
        results, first = {}, 0
        for _ in range(ROUNDS):
            put = recording.capture(metrics, "batch_put_metrics", TrialComponentName="bench", MetricData=data)
            ours = recording.write(run.folder / "put", put)
            for connections in CONNECTIONS:
                result = load.replay(server.address, ours, connections, SECONDS)
                results.setdefault(("modelyard", POINTS, connections), []).append(result)
                for points in MLFLOW_POINTS:
                    theirs = mlflow_requests(run.folder / "log-batch", mlflow, mlflow_run, points, first)
                    first += DISTINCT[points] * points
                    result = load.replay(mlflow, theirs, connections, SECONDS)
                    results.setdefault(("mlflow", points, connections), []).append(result)
        combined = {key: load.combined(rounds) for key, rounds in results.items()}
        sqlite = {points: sqlite_rows_per_second(run.folder, points) for points in (POINTS, 1000)}
        rows = []
        for connections in CONNECTIONS:
            ours = combined["modelyard", POINTS, connections]
            theirs, large = (combined["mlflow", points, connections] for points in MLFLOW_POINTS)
            rate = ours["rate"] * POINTS
            rows.append(
                [
                    f"{connections} connection{'s' * (connections > 1)}",
                    f"{rate:.0f}",
                    f"{theirs['rate'] * POINTS:.0f}",
                    report.ratio(rate, theirs["rate"] * POINTS),
                    f"{large['rate'] * 1000:.0f}",
                    report.ratio(rate, sqlite[POINTS]),
                    f"{ours['p50_ms']:.2f}",
                    f"{ours['p99_ms']:.2f}",
                    f"{theirs['p99_ms']:.2f}",
                ]
            )
        heads = ["durable points/s, 10 a request", "modelyard", "mlflow", "ratio", "mlflow, 1,000 a request", "of bare SQLite"]
        report.table([*heads, "p50 ms", "p99 ms", "mlflow p99"], rows)
        print(f"limit: bare SQLite, one writer, {sqlite[POINTS]:.0f} points/s 10 a commit, {sqlite[1000]:.0f} points/s 1,000 a commit")
        described = sagemaker.describe_trial_component(TrialComponentName="bench")["Metrics"][0]
        put = sum(one["requests"] for key, one in combined.items() if key[0] == "modelyard") * POINTS
        if described["Count"] < put:
            raise SystemExit(f"{put} points were acknowledged, and {described['Count']} are there")
        query = {"MetricName": "loss", "ResourceArn": component, "MetricStat": "Last", "Period": "IterationNumber", "XAxisType": "IterationNumber"}
        reads = {
            "DescribeTrialComponent": lambda: sagemaker.describe_trial_component(TrialComponentName="bench"),
            "BatchGetMetrics": lambda: metrics.batch_get_metrics(MetricQueries=[query]),
        }
        rows = [[name, *(f"{value:.1f}" for value in milliseconds(call))] for name, call in reads.items()]
        report.table([f"reads of a series of {described['Count']} points, ms", "median", "slowest"], rows)


if __name__ == "__main__":
    main()
