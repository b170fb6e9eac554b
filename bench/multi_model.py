"""A thousand boosted-tree models behind one multi-model endpoint, beside the library that holds as many in process."""

import io
import json
import statistics
import subprocess
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor

from harness import BENCH, options, report
from harness.modelyard import Modelyard
from harness.models import SUBJECTS
from harness.processes import proportional_bytes

NAME = "bench-multi-model"
CONNECTIONS = 4
MEMORY_LIMIT_GIB = 24


def archive(name, data):
    """A model archive of one file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def main():
    chosen = options.parse(__doc__, models=dict(type=int, default=1000, help="how many [default: 1000]"))
    report.heading(f"{chosen.models} models behind one endpoint")
    subject = SUBJECTS[0]
    python, model = subject.trained(chosen.folder)
    body = archive(subject.file, model)
    rows = json.loads((chosen.folder / subject.rows).read_text())
    names = [f"{number:05}.tar.gz" for number in range(chosen.models)]
    with Modelyard(chosen.modelyard, chosen.folder) as server:
        s3, runtime = server.client("s3"), server.client("sagemaker-runtime")
        s3.create_bucket(Bucket=server.bucket)
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            list(pool.map(lambda name: s3.put_object(Bucket=server.bucket, Key=f"{NAME}/{name}", Body=body), names))
        container = {
            "Image": subject.image,
            "Mode": "MultiModel",
            "ModelDataUrl": f"s3://{server.bucket}/{NAME}/",
            "Environment": {"MODELYARD_ENGINE": subject.engine},
        }
        server.serve(NAME, container, InstanceType="ml.m5.2xlarge")

        def ask(numbered):
            number, name = numbered
            row, expected = rows[number % len(rows)]
            began = time.perf_counter()
            call = {"EndpointName": NAME, "TargetModel": name, "ContentType": "text/csv", "Accept": "text/csv", "Body": row}
            answer = runtime.invoke_endpoint(**call)["Body"].read()
            if abs(float(answer) - expected) > 1e-6:
                raise SystemExit(f"{name} says {answer}, the library {expected}")
            return (time.perf_counter() - began) * 1e3

        before = proportional_bytes([server.process.pid])
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            began = time.perf_counter()
            cold = list(pool.map(ask, enumerate(names)))
            cold_seconds = time.perf_counter() - began
            after = proportional_bytes([server.process.pid])
            hot = list(pool.map(ask, enumerate(names * 3)))
        server.remove(NAME)
    done = subprocess.run(
        [python, BENCH / "peers/xgboost_many.py", chosen.folder / subject.model, str(chosen.models)], check=True, capture_output=True
    )
    library = json.loads(done.stdout)
    ours = (after - before) / 2**20
    report.table(
        [f"{chosen.models} models of 100 trees", "ms a first request", "p99 ms", "ms a later one", "p99 ms", "MiB a model"],
        [
            [
                f"modelyard, {CONNECTIONS} connections",
                *(f"{number:.1f}" for number in (
                    statistics.median(cold), percentile(cold, 0.99), statistics.median(hot), percentile(hot, 0.99),
                )),
                f"{ours / chosen.models:.2f}",
            ],
            ["limit: XGBoost in process, load and keep", f"{library['load_ms']:.1f}", "", "", "", f"{library['mib'] / chosen.models:.2f}"],
        ],
    )
    print(f"all first requests in {cold_seconds:.1f} s; memory {report.ratio(ours, library['mib'])} of the library's")
    report.verdict(f"memory of {chosen.models} models", ours / 1024, MEMORY_LIMIT_GIB, "GiB")


if __name__ == "__main__":
    main()
