"""Start-up time, idle memory and size of the server, beside moto's server."""

import statistics
import subprocess
import sys
import time

from harness import options, report
from harness.modelyard import Modelyard
from harness.processes import Process, free_port

STARTS = 5
IDLE_SECONDS = 2

READY_LIMIT_SECONDS = 1
MEMORY_LIMIT_MB = 100
BINARY_LIMIT_MB = 80


def modelyard(binary, folder):
    """Seconds until ready on a new data directory and again on the same, and idle memory after the second start."""
    folder.mkdir()
    with Modelyard(binary, folder) as server:
        first = server.ready_seconds
    with Modelyard(binary, folder) as server:
        again = server.ready_seconds
        time.sleep(IDLE_SECONDS)
        return first, again, server.resident_bytes() / 1e6


def moto(folder):
    """Seconds until moto's server answers, and its idle memory."""
    port = free_port()
    with Process([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", port], folder / "moto.log") as server:
        ready = server.wait_until_answers(f"127.0.0.1:{port}", "/moto-api/")
        time.sleep(IDLE_SECONDS)
        return ready, server.resident_bytes() / 1e6


def spawn(binary):
    """Seconds to start and end the same binary with nothing to do."""
    started = time.perf_counter()
    subprocess.run([binary, "--version"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main():
    chosen = options.parse(__doc__)
    report.heading("Start-up")
    ours, theirs, bare = [], [], []
    for index in range(STARTS):
        bare.append(spawn(chosen.modelyard))
        ours.append(modelyard(chosen.modelyard, chosen.folder / f"modelyard-{index}"))
        theirs.append(moto(chosen.folder))
    first, again, memory = (statistics.median(column) for column in zip(*ours))
    moto_ready, moto_memory = (statistics.median(column) for column in zip(*theirs))
    limit = statistics.median(bare)
    size = chosen.modelyard.stat().st_size / 1e6
    report.table(
        ["", "ready, ms", "idle memory, MB"],
        [
            ["modelyard, new data directory", f"{first * 1000:.0f}", ""],
            ["modelyard, existing data directory", f"{again * 1000:.0f}", f"{memory:.0f}"],
            ["moto server (keeps nothing)", f"{moto_ready * 1000:.0f}", f"{moto_memory:.0f}"],
            ["limit: `modelyard --version`", f"{limit * 1000:.0f}", ""],
        ],
    )
    print(f"moto / modelyard: ready {report.ratio(moto_ready, first)}, memory {report.ratio(moto_memory, memory)}")
    slowest = max(max(first, again) for first, again, _ in ours)
    report.verdict("ready, slowest of all starts", slowest, READY_LIMIT_SECONDS, "s")
    report.verdict("idle memory", memory, MEMORY_LIMIT_MB, "MB")
    report.verdict("binary", size, BINARY_LIMIT_MB, "MB")


if __name__ == "__main__":
    main()
