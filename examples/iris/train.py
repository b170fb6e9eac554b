"""Training and inference script of the iris example."""

import argparse
import os
from pathlib import Path

import joblib
import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_val_score


def model_fn(model_dir):
    return joblib.load(Path(model_dir) / "model.joblib")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--n-estimators", type=int, default=100)
    parser.add_argument("--max-depth", type=int)
    arguments = parser.parse_args()

    table = np.loadtxt(Path(os.environ["SM_CHANNEL_TRAIN"]) / "iris.csv", delimiter=",")
    features, labels = table[:, :-1], table[:, -1].astype(int)
    model = RandomForestClassifier(arguments.n_estimators, max_depth=arguments.max_depth, random_state=0)
    print(f"accuracy={cross_val_score(model, features, labels, cv=5).mean():.4f}")
    joblib.dump(model.fit(features, labels), Path(os.environ["SM_MODEL_DIR"]) / "model.joblib")
