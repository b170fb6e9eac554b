"""What the benchmarks share: servers under measurement, signed recordings, the load generator, tables."""

from pathlib import Path

BENCH = Path(__file__).resolve().parents[1]
ROOT = BENCH.parent
