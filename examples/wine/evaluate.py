"""Judges a trained model by rows that it has not seen, and writes the report that the pipeline's condition reads."""

import json
import tarfile
from pathlib import Path

import joblib
import numpy as np
from sklearn.metrics import accuracy_score, f1_score

FOLDER = Path("/opt/ml/processing")

if __name__ == "__main__":
    with tarfile.open(FOLDER / "model/model.tar.gz") as archive:
        model = joblib.load(archive.extractfile("model.joblib"))
    table = np.loadtxt(FOLDER / "test/test.csv", delimiter=",")
    labels, predicted = table[:, -1].astype(int), model.predict(table[:, :-1])
    metrics = {
        "accuracy": {"value": float(accuracy_score(labels, predicted))},
        "f1": {"value": float(f1_score(labels, predicted, average="macro"))},
    }
    report = {"multiclass_classification_metrics": metrics}
    (FOLDER / "evaluation/evaluation.json").write_text(json.dumps(report))
    print(report)
