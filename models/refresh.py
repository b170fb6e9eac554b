#!/usr/bin/env python3
"""Writes models/SERVICE.json from the service models of the botocore release that models/PIN names.

Usage: python3 models/refresh.py [WHEEL]    (without WHEEL, pip downloads the pinned release)
"""

import gzip
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

MODELS = Path(__file__).resolve().parent

SERVICES = """
    application-autoscaling athena cloudwatch ecr emr emr-serverless events glue iam kms lambda logs s3 sagemaker
    sagemaker-a2i-runtime sagemaker-featurestore-runtime sagemaker-metrics sagemaker-runtime scheduler secretsmanager sns sqs
    sts
""".split()

# Prose, and hints for clients alone: where to send a request, and what to sign or compress.
DROPPED = {
    "auth",
    "authtype",
    "contextParam",
    "deprecatedMessage",
    "deprecatedSince",
    "documentation",
    "documentationUrl",
    "endpoint",
    "endpointdiscovery",
    "endpointoperation",
    "hostLabel",
    "httpChecksum",
    "operationContextParams",
    "requestcompression",
    "staticContextParams",
    "unsignedPayload",
    "uid",
}

# Objects whose keys are names that the service chose: their order is the model's, and no key of them is dropped.
NAMED = {"members", "operations", "pagination", "shapes", "waiters"}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        wheel = Path(sys.argv[1]) if len(sys.argv) > 1 else download(Path(folder))
        with zipfile.ZipFile(wheel) as archive:
            for service in SERVICES:
                write(service, model(archive, service))


def download(folder: Path) -> Path:
    pin = (MODELS / "PIN").read_text().strip()
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), pin]
    subprocess.run(command, check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def model(archive: zipfile.ZipFile, service: str) -> dict:
    """The newest version of a service's model with its paginators and waiters."""
    found = re.compile(rf"botocore/data/{re.escape(service)}/(\d{{4}}-\d\d-\d\d)/service-2\.json\.gz")
    versions = [match[1] for name in archive.namelist() if (match := found.fullmatch(name))]
    folder = f"botocore/data/{service}/{max(versions)}"
    read = read_json(archive, f"{folder}/service-2")
    return {
        "version": read["version"],
        "metadata": kept(read["metadata"]),
        "operations": kept(read["operations"], named=True),
        "paginators": kept(read_json(archive, f"{folder}/paginators-1").get("pagination", {}), named=True),
        "waiters": kept(read_json(archive, f"{folder}/waiters-2").get("waiters", {}), named=True),
        "shapes": kept(read["shapes"], named=True),
    }


def read_json(archive: zipfile.ZipFile, stem: str) -> dict:
    """A file of the archive, compressed or not, with the additions that lie beside it laid over; {} when absent."""
    names = set(archive.namelist())
    read = {}
    if f"{stem}.json.gz" in names:
        read = json.loads(gzip.decompress(archive.read(f"{stem}.json.gz")))
    elif f"{stem}.json" in names:
        read = json.loads(archive.read(f"{stem}.json"))
    if f"{stem}.sdk-extras.json" in names:
        lay_over(read, json.loads(archive.read(f"{stem}.sdk-extras.json")).get("merge", {}))
    return read


def lay_over(base: dict, more: dict) -> None:
    for key, value in more.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            lay_over(base[key], value)
        else:
            base[key] = value


def kept(value, named=False):
    """The facts of a value: keys sorted, except where their order is a fact."""
    if isinstance(value, list):
        return [kept(element) for element in value]
    if not isinstance(value, dict):
        return value
    if named:
        return {key: kept(element) for key, element in value.items()}
    return {key: kept(value[key], named=key in NAMED) for key in sorted(value) if key not in DROPPED}


def write(service: str, read: dict) -> None:
    """One operation, shape, paginator or waiter a line, so that a refresh shows as a readable difference."""
    sections = []
    for section in sorted(read):
        value = read[section]
        if isinstance(value, dict) and section != "metadata":
            entries = ",\n".join(f"{json.dumps(name)}: {compact(value[name])}" for name in sorted(value))
            sections.append(f"{json.dumps(section)}: {{\n{entries}\n}}" if value else f"{json.dumps(section)}: {{}}")
        else:
            sections.append(f"{json.dumps(section)}: {compact(value)}")
    text = "{\n" + ",\n".join(sections) + "\n}\n"
    (MODELS / f"{service}.json").write_text(text)


def compact(value) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


if __name__ == "__main__":
    main()
