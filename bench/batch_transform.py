"""Rows per second of a batch transform job on a small scikit-learn model, beside the model's functions called in process."""

import importlib.util
import io
import time

import joblib
import numpy
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression

from harness import options, report
from harness.modelyard import SKLEARN_IMAGE, Modelyard, wait

ROWS = 100_000
BATCH_BYTES = 6 * 1024 * 1024
ROUNDS = 3

# What the job and the peer both run: text in, text out.
SCRIPT = """
import io, os
import joblib, numpy

def model_fn(folder):
    return joblib.load(os.path.join(folder, "model.joblib"))

def transform_fn(model, body, content_type, accept):
    rows = numpy.loadtxt(io.StringIO(body), delimiter=",", ndmin=2)
    return "".join("%.6f\\n" % score for score in model.predict_proba(rows)[:, 1]), accept
"""


def prepare(folder):
    """The model as bytes, and many rows as CSV."""
    rows, labels = load_breast_cancer(return_X_y=True)
    buffer = io.BytesIO()
    joblib.dump(LogisticRegression(max_iter=10_000).fit(rows, labels), buffer)
    (folder / "model.joblib").write_bytes(buffer.getvalue())
    lines = [",".join(f"{value:g}" for value in row) + "\n" for row in rows]
    chosen = numpy.random.default_rng(1).integers(len(lines), size=ROWS)
    return buffer.getvalue(), "".join(lines[index] for index in chosen)


def in_process(folder, text):
    """The seconds that the functions alone take, in batches of the same size, and their output."""
    path = folder / "inference.py"
    path.write_text(SCRIPT)
    specification = importlib.util.spec_from_file_location("inference", path)
    script = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(script)
    model = script.model_fn(folder)
    started, answers, at = time.perf_counter(), [], 0
    while at < len(text):
        end = len(text) if at + BATCH_BYTES >= len(text) else text.rindex("\n", at, at + BATCH_BYTES) + 1
        answers.append(script.transform_fn(model, text[at:end], "text/csv", "text/csv")[0])
        at = end
    return time.perf_counter() - started, "".join(answers)


def transform(server, sagemaker, name, **request):
    """The seconds of a job from its first request to its end, those from its creation, and its output."""
    created = time.perf_counter()
    source = {"S3DataType": "S3Prefix", "S3Uri": f"s3://{server.bucket}/rows/"}
    sagemaker.create_transform_job(
        TransformJobName=name,
        ModelName="bench",
        TransformInput={"DataSource": {"S3DataSource": source}, "ContentType": "text/csv", "SplitType": "Line"},
        TransformOutput={"S3OutputPath": f"s3://{server.bucket}/{name}", "Accept": "text/csv"},
        TransformResources={"InstanceType": "ml.m5.large", "InstanceCount": 1},
        **request,
    )

    def ended():
        job = sagemaker.describe_transform_job(TransformJobName=name)
        return job if job["TransformJobStatus"] in ("Completed", "Failed", "Stopped") else None

    job = wait(f"{name} has ended", ended, 200)
    if job["TransformJobStatus"] != "Completed":
        raise SystemExit(f"{name} failed: {job.get('FailureReason')}")
    whole = time.perf_counter() - created
    output = server.client("s3").get_object(Bucket=server.bucket, Key=f"{name}/rows.csv.out")["Body"].read().decode()
    return (job["TransformEndTime"] - job["TransformStartTime"]).total_seconds(), whole, output


def main():
    chosen = options.parse(__doc__)
    report.heading("Batch transform")
    model, text = prepare(chosen.folder)
    with Modelyard(chosen.modelyard, chosen.folder) as server:
        sagemaker = server.client("sagemaker")
        source = server.upload("bench/model.tar.gz", {"model.joblib": model, "code/inference.py": SCRIPT.encode()})
        container = {"Image": SKLEARN_IMAGE, "ModelDataUrl": source}
        sagemaker.create_model(ModelName="bench", ExecutionRoleArn=server.role, PrimaryContainer=container)
        server.client("s3").put_object(Bucket=server.bucket, Key="rows/rows.csv", Body=text.encode())
        seconds = {"in process": [], "one at a time": [], "one, with its start": [], "two at a time": [], "two, with its start": []}
        for attempt in range(ROUNDS):
            alone, expected = in_process(chosen.folder, text)
            seconds["in process"].append(alone)
            for word, at_once in (("one", 1), ("two", 2)):
                transforming, whole, output = transform(server, sagemaker, f"{word}-{attempt}", MaxConcurrentTransforms=at_once)
                if output != expected:
                    raise SystemExit("the output of the job is not what the model says")
                seconds[f"{word} at a time"].append(transforming)
                seconds[f"{word}, with its start"].append(whole)
    best = {name: min(values) for name, values in seconds.items()}
    rows = [
        [name, f"{ROWS / value:,.0f}", f"{value:.2f}", report.ratio(best["in process"], value)] for name, value in best.items()
    ]
    report.table([f"{ROWS:,} rows of 30 columns", "rows/s", "seconds", "of in process"], rows)
    report.verdict("one request at a time over in process", best["one at a time"] / best["in process"], 1.25, "times")


if __name__ == "__main__":
    main()
