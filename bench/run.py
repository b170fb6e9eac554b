"""Runs the benchmarks that are named, or all of them: python bench/run.py [NAME...] --modelyard PATH"""

import subprocess
import sys
import time
from pathlib import Path

NAMES = [
    "start_up",
    "job_start",
    "warm",
    "channels",
    "queue_of_jobs",
    "orchestration",
    "batch_transform",
    "control_plane",
    "pipeline_history",
    "search",
    "invoke",
    "native",
    "batching",
    "cold_start",
    "multi_model",
    "own_container",
    "restart",
    "logs",
    "metrics",
    "experiment_metrics",
    "s3",
]


def main():
    names = [word for word in sys.argv[1:] if word in NAMES]
    options = [word for word in sys.argv[1:] if word not in NAMES]
    unknown = [word for index, word in enumerate(options) if not word.startswith("-") and not (index and options[index - 1].startswith("-"))]
    if unknown:
        sys.exit(f"there is no benchmark {' or '.join(unknown)}; there are: {', '.join(NAMES)}")
    failed = []
    for name in names or NAMES:
        started = time.monotonic()
        # A process each: what one leaves in memory must not slow the next.
        done = subprocess.run([sys.executable, Path(__file__).parent / f"{name}.py", *options])
        print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)
        if done.returncode != 0:
            failed.append(name)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
