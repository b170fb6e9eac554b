"""PutMetricData per second, and GetMetricStatistics and GetMetricData as the store grows, beside moto's server."""

import concurrent.futures
import statistics
import sys
import time
from datetime import datetime, timedelta, timezone

import boto3
from botocore.config import Config
from control_plane import disk_syncs_per_second
from harness import load, options, recording, report
from harness.modelyard import Modelyard
from harness.processes import Process, free_port

CONNECTIONS = (1, 16)
ROUNDS = 2
SECONDS = 2
# Metrics of one request: an agent's report, and as many as a request may have.
METRICS = (20, 1000)
# Values of one datum, as many as a datum may have.
VALUES = 150
SERIES = 10
MINUTES = 1440
# Points that moto is filled with; it keeps each as an object in a list and looks at all of them.
COMMON_POINTS = 30_000
SIZES = (COMMON_POINTS, 1_000_000, 3_000_000)
QUERIES = 20
PEER_QUERIES = 2

NOW = datetime.fromtimestamp(int(time.time()) // 60 * 60, timezone.utc)
START = NOW - timedelta(minutes=MINUTES)


def client(address, connection):
    return boto3.client(
        "cloudwatch",
        endpoint_url=f"http://{address}",
        region_name=connection["region"],
        aws_access_key_id=connection["access_key_id"],
        aws_secret_access_key=connection["secret_access_key"],
        config=Config(retries={"max_attempts": 0}, read_timeout=120, max_pool_connections=8),
    )


def dimensions(series):
    return [{"Name": "TrainingJobName", "Value": f"job-{series}"}]


def measure_puts(server, moto, folder):
    """Results by metrics of a request, connections and address; the same bytes go to both."""
    results = {}
    for metrics in METRICS:
        data = [
            {"MetricName": f"metric-{index % 50}", "Value": index / 7, "Timestamp": NOW, "Dimensions": dimensions(index // 50)}
            for index in range(metrics)
        ]
        put = recording.capture(
            # Compressed bodies are no text, and undoing them is not what is measured.
            uncompressed(client(server.address, server.connection)), "put_metric_data", Namespace="Puts", MetricData=data
        )
        for _ in range(ROUNDS):
            path = recording.write(folder / f"put-{metrics}", put)
            for connections in CONNECTIONS:
                for address in (server.address, moto):
                    result = load.replay(address, path, connections, SECONDS)
                    results.setdefault((metrics, connections, address), []).append(result)
    return {key: load.combined(rounds) for key, rounds in results.items()}


def uncompressed(cloudwatch):
    cloudwatch.meta.config.disable_request_compression = True
    return cloudwatch


def fill(cloudwatch, first, last):
    """Puts the points from `first` to `last`: minutes of a day, 150 values each, for ten series in turn."""
    data = []
    for index in range(first // VALUES, last // VALUES):
        minute, series = index // SERIES % MINUTES, index % SERIES
        values = [float((index * 31 + value * 17) % 10_000) / 100 for value in range(VALUES)]
        data.append(
            {
                "MetricName": "loss",
                "Timestamp": START + timedelta(minutes=minute),
                "Values": values,
                "Dimensions": dimensions(series),
            }
        )
    batches = [data[at : at + 200] for at in range(0, len(data), 200)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda batch: cloudwatch.put_metric_data(Namespace="Filled", MetricData=batch), batches))


def milliseconds(call, times=QUERIES):
    """The median of some calls, and the slowest."""
    took = []
    for _ in range(times):
        started = time.perf_counter()
        call()
        took.append((time.perf_counter() - started) * 1000)
    return statistics.median(took), max(took)


def queries(cloudwatch):
    span = {"StartTime": START, "EndTime": NOW}
    one = {"Namespace": "Filled", "MetricName": "loss", "Dimensions": dimensions(3)}

    def statistic():
        answer = cloudwatch.get_metric_statistics(**one, **span, Period=300, Statistics=["Average"])
        assert len(answer["Datapoints"]) > 3, answer

    def percentile():
        cloudwatch.get_metric_statistics(**one, **span, Period=3600, ExtendedStatistics=["p99"])

    def math():
        metrics = [
            {
                "Id": f"m{series}",
                "MetricStat": {
                    "Metric": {"Namespace": "Filled", "MetricName": "loss", "Dimensions": dimensions(series)},
                    "Period": 300,
                    "Stat": "Sum",
                },
                "ReturnData": False,
            }
            for series in range(SERIES)
        ]
        total = {"Id": "total", "Expression": "SUM(METRICS()) / 10"}
        cloudwatch.get_metric_data(MetricDataQueries=[*metrics, total], **span)

    return {"Average of one metric": statistic, "p99 of one metric": percentile, "math over ten metrics": math}


def main():
    chosen = options.parse(__doc__)
    report.heading("Metrics")
    port = free_port()
    moto = f"127.0.0.1:{port}"
    moto_command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", port]
    with (
        Modelyard(chosen.modelyard, chosen.folder) as server,
        Process(moto_command, chosen.folder / "moto.log") as moto_server,
    ):
        moto_server.wait_until_answers(moto, "/moto-api/")
        syncs = disk_syncs_per_second(chosen.folder)
        puts = measure_puts(server, moto, chosen.folder)
        rows = []
        for metrics in METRICS:
            for connections in CONNECTIONS:
                ours, theirs = (puts[metrics, connections, address] for address in (server.address, moto))
                rows.append(
                    [
                        f"{metrics} metrics, {connections} connection{'s' * (connections > 1)}",
                        *(f"{result['rate'] * metrics:.0f}" for result in (ours, theirs)),
                        report.ratio(ours["rate"], theirs["rate"]),
                        *(f"{result[key]:.2f}" for result in (ours, theirs) for key in ("p50_ms", "p99_ms")),
                    ]
                )
        report.table(["PutMetricData, metrics/s", "modelyard", "moto", "ratio", "p50 ms", "p99 ms", "moto p50", "moto p99"], rows)
        print(f"limit: {syncs:.0f} forced appends/s by one thread on this disk; moto keeps everything in memory\n", flush=True)
        ours, theirs = client(server.address, server.connection), client(moto, server.connection)
        fill(theirs, 0, COMMON_POINTS)
        peer = {}
        for name, call in queries(theirs).items():
            try:
                peer[name] = f"{milliseconds(call, PEER_QUERIES)[0]:.1f}"
            except Exception as error:  # What the peer does not do is part of the comparison.
                peer[name] = type(error).__name__
        rows, filled = [], 0
        for points in SIZES:
            started = time.perf_counter()
            fill(ours, filled, points)
            rate = (points - filled) / (time.perf_counter() - started)
            filled = points
            for name, call in queries(ours).items():
                median, slowest = milliseconds(call)
                beside = peer[name] if points == COMMON_POINTS else ""
                rows.append([f"{points} points: {name}", f"{median:.1f}", f"{slowest:.1f}", beside, f"{rate:.0f}"])
        report.table(["queries of a day, ms", "median", "slowest", "moto", "points/s when filled"], rows)


if __name__ == "__main__":
    main()
