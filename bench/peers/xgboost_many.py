"""What XGBoost itself needs to keep a model many times: python xgboost_many.py MODEL COUNT."""

import json
import sys
import time

import xgboost


def proportional_mib():
    with open("/proc/self/smaps_rollup") as file:
        return sum(int(line.split()[1]) / 1024 for line in file if line.startswith("Pss:"))


def main():
    path, count = sys.argv[1], int(sys.argv[2])
    before, started = proportional_mib(), time.perf_counter()
    kept = [xgboost.Booster({"nthread": 1}, model_file=path) for _ in range(count)]
    seconds = time.perf_counter() - started
    print(json.dumps({"load_ms": 1e3 * seconds / len(kept), "mib": proportional_mib() - before}))


if __name__ == "__main__":
    main()
