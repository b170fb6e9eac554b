"""Latencies of queries: many different requests of one operation, each sent once on one connection."""

from harness import load, recording, report

# Longer than any of them takes: what is not sent in this time is not measured.
SECONDS = 120


def measure(server, folder, client, queries):
    """Sends the requests of each query, given as name, method of the client, and parameters of each; results by name."""
    results = {}
    for name, operation, requests in queries:
        captures = [recording.capture(client, operation, **parameters) for parameters in requests]
        written = recording.write_each(folder / "queries", captures)
        # Once without measuring: what is read for the first time comes from the disk.
        load.replay(server.address, written, 1, SECONDS, once=True)
        results[name] = load.replay(server.address, written, 1, SECONDS, once=True)
    return results


def show(what, results, limit, limit_ms):
    """Prints a table of the queries and how far each is from the limit, and whether all keep the goal."""
    rows = [
        [name, str(result["requests"]), f"{result['p50_ms']:.2f}", f"{result['p99_ms']:.2f}", report.ratio(result["p50_ms"], limit["p50_ms"])]
        for name, result in results.items()
    ]
    rows.append(["limit: bare HTTP server", str(limit["requests"]), f"{limit['p50_ms']:.2f}", f"{limit['p99_ms']:.2f}", "1.00x"])
    report.table([what, "requests", "p50 ms", "p99 ms", "of the limit"], rows)
    for name, result in results.items():
        report.verdict(name, result["p99_ms"], limit_ms, "ms at the 99th percentile")
