"""The load generator and the bare HTTP server: the small Rust package beside this one, built on first use."""

import functools
import json
import os
import statistics
import subprocess
from pathlib import Path

from harness import BENCH, ROOT
from harness.processes import Process


@functools.cache
def binary():
    """Path of the built program."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "bench-load"
    manifest = BENCH / "load/Cargo.toml"
    subprocess.run(
        ["cargo", "build", "--quiet", "--release", "--locked", "--manifest-path", manifest, "--target-dir", target], check=True
    )
    return target / "release/load"


class Bare(Process):
    """A hyper server that answers fixed bytes: the limit of HTTP on this machine with this generator."""

    def __init__(self, folder, body):
        super().__init__([binary(), "bare", f"--body={body}"], folder / "bare.log", read_output=True)
        self.address = self.line_with("listening on ").removeprefix("listening on ")


class Proxy(Process):
    """A hyper server that passes requests on: the limit of what stands between a client and a server on this machine."""

    def __init__(self, folder, to):
        super().__init__([binary(), "proxy", to], folder / "proxy.log", read_output=True)
        self.address = self.line_with("listening on ").removeprefix("listening on ")


class Hand(Process):
    """A hyper server that hands the body of each request to processes, which connect to the socket that their command ends with: the limit of
    what runs in processes of its own on this machine."""

    def __init__(self, folder, command, processes, environment):
        socket = folder / "hand.sock"
        arguments = [binary(), "hand", socket, "--processes", str(processes)]
        super().__init__(arguments, folder / "hand.log", read_output=True)
        self.workers = []
        try:
            self.line_with("waiting for processes")
            for number in range(processes):
                self.workers.append(Process([*command, socket], folder / f"hand-{number}.log", environment))
            self.address = self.line_with("listening on ").removeprefix("listening on ")
        except BaseException:
            self.end()
            raise

    def pids(self):
        return [self.process.pid, *(worker.process.pid for worker in self.workers)]

    def end(self):
        for worker in self.workers:
            worker.end()
        super().end()


def replay(address, recording, connections, seconds, once=False):
    """Sends a recording; every answer must be a 200."""
    command = [binary(), "replay", address, recording, "--connections", str(connections), "--seconds", str(seconds)]
    done = subprocess.run(command + ["--once"] * once, capture_output=True, text=True, timeout=seconds + 60)
    if done.returncode != 0:
        raise SystemExit(f"the load generator failed: {done.stderr.strip()}")
    result = json.loads(done.stdout)
    if set(result["statuses"]) != {"200"}:
        raise SystemExit(f"{address} answered {result['statuses']}; the first wrong one: {result['first_wrong']}")
    return result


def combined(rounds):
    """One result of several rounds: all requests over all time, the median of the rounds' percentiles."""
    return {
        "rate": sum(result["requests"] for result in rounds) / sum(result["seconds"] for result in rounds),
        "p50_ms": statistics.median(result["p50_ms"] for result in rounds),
        "p99_ms": statistics.median(result["p99_ms"] for result in rounds),
        "requests": sum(result["requests"] for result in rounds),
    }
