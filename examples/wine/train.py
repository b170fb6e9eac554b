"""Trains a classifier of wines."""

import argparse
import os
from pathlib import Path

import joblib
import numpy as np
from sklearn.ensemble import RandomForestClassifier

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--trees", type=int, default=100)
    arguments = parser.parse_args()

    table = np.loadtxt(Path(os.environ["SM_CHANNEL_TRAIN"]) / "train.csv", delimiter=",")
    model = RandomForestClassifier(arguments.trees, oob_score=True, random_state=0)
    model.fit(table[:, :-1], table[:, -1].astype(int))
    print(f"out_of_bag_accuracy={model.oob_score_:.4f}")
    joblib.dump(model, Path(os.environ["SM_MODEL_DIR"]) / "model.joblib")
