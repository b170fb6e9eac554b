"""Splits the table of wines into rows to train with and rows to judge by."""

import argparse
from pathlib import Path

import numpy as np
from sklearn.model_selection import train_test_split

FOLDER = Path("/opt/ml/processing")

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--test-ratio", type=float, default=0.3)
    arguments = parser.parse_args()

    table = np.loadtxt(FOLDER / "input/wine.csv", delimiter=",")
    parts = train_test_split(table, test_size=arguments.test_ratio, stratify=table[:, -1], random_state=0)
    for name, part in zip(("train", "test"), parts):
        np.savetxt(FOLDER / name / f"{name}.csv", part, delimiter=",")
        print(f"{name}: {len(part)} rows")
