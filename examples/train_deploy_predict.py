"""Trains scikit-learn's iris classifier as a SageMaker job, deploys it to an endpoint, and predicts.

Runs unchanged against SageMaker in the cloud and against Modelyard: modelyard run -- python examples/train_deploy_predict.py
"""

import csv
import tempfile
import time
from pathlib import Path

import sagemaker
from sagemaker.sklearn import SKLearn
from sklearn.datasets import load_iris

started = time.time()


def say(text):
    print(f"[{time.time() - started:6.1f} s] {text}", flush=True)


session = sagemaker.Session()
role = sagemaker.get_execution_role()
bucket = session.default_bucket()

iris = load_iris()
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "iris.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([*row, label] for row, label in zip(iris.data, iris.target))
    data = session.upload_data(str(path), bucket=bucket, key_prefix="examples/iris")
say(f"uploaded {len(iris.data)} rows to {data}")

estimator = SKLearn(
    entry_point="train.py",
    source_dir=str(Path(__file__).parent / "iris"),
    role=role,
    instance_type="ml.m5.large",
    framework_version="1.2-1",
    hyperparameters={"n-estimators": 50, "max-depth": 4},
    metric_definitions=[{"Name": "accuracy", "Regex": "accuracy=([0-9.]+)"}],
)
estimator.fit({"train": data})
say(f"trained: {estimator.model_data}")

predictor = estimator.deploy(initial_instance_count=1, instance_type="ml.m5.large")
say(f"deployed: {predictor.endpoint_name}")
try:
    rows = iris.data[::30]
    predicted = predictor.predict(rows)
    for row, label in zip(rows, predicted):
        say(f"{row} is {iris.target_names[int(label)]}")
finally:
    predictor.delete_model()
    predictor.delete_endpoint()
