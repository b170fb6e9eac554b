"""The command line and the `aws` tool."""

import json
import os
import subprocess
import sys
from pathlib import Path

from conftest import BINARY

AWS = Path(sys.executable).parent / "aws"


def aws(server, *words, **options):
    done = subprocess.run(
        [AWS, *words], env={**server.environment(), "AWS_PAGER": ""}, capture_output=True, text=True, timeout=120, **options
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_aws_s3(server, tmp_path):
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    (folder / "a b.txt").write_text("one")
    (folder / "deep/ü+.txt").write_text("two")
    (folder / "big.bin").write_bytes(os.urandom(20 * 1024 * 1024))
    aws(server, "s3", "mb", "s3://cli-bucket")
    aws(server, "s3", "sync", str(folder), "s3://cli-bucket/x")
    assert sorted(line.split(maxsplit=3)[3] for line in aws(server, "s3", "ls", "--recursive", "s3://cli-bucket").splitlines()) == [
        "x/a b.txt", "x/big.bin", "x/deep/ü+.txt",
    ]
    aws(server, "s3", "cp", "s3://cli-bucket/x", str(tmp_path / "back"), "--recursive")
    assert (tmp_path / "back/big.bin").read_bytes() == (folder / "big.bin").read_bytes()
    assert (tmp_path / "back/deep/ü+.txt").read_text() == "two"
    aws(server, "s3", "rm", "--recursive", "s3://cli-bucket")
    aws(server, "s3", "rb", "s3://cli-bucket")


def test_aws_sagemaker(server):
    identity = json.loads(aws(server, "sts", "get-caller-identity"))
    assert ":assumed-role/ModelyardExecutionRole/" in identity["Arn"]
    assert "TrainingJobSummaries" in json.loads(aws(server, "sagemaker", "list-training-jobs"))
    done = subprocess.run(
        [AWS, "sagemaker", "describe-training-job", "--training-job-name", "none"],
        env=server.environment(), capture_output=True, text=True, timeout=60,
    )
    assert done.returncode != 0 and "Requested resource not found." in done.stderr
    done = subprocess.run(
        [AWS, "sagemaker", "list-clusters"], env=server.environment(), capture_output=True, text=True, timeout=60
    )
    assert "NotImplemented" in done.stderr and "ListClusters" in done.stderr


def test_env_respects_a_sitecustomize(server, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import os; os.environ['HIDDEN'] = 'was run'\n")
    environment = server.environment()
    environment["PYTHONPATH"] += f":{tmp_path}"
    program = (
        "import os, boto3; print(os.environ['HIDDEN']);"
        "print(boto3.client('sts', endpoint_url='https://sts.us-east-1.amazonaws.com').get_caller_identity()['Arn'])"
    )
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "was run" and "assumed-role" in done.stdout


def test_run_and_help(server):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    done = subprocess.run(
        [BINARY, "run", "--data-dir", server.data_dir, "--", "printenv", "AWS_ENDPOINT_URL"],
        env=environment, capture_output=True, text=True,
    )
    assert done.stdout.strip() == server.endpoint
    for words in (["--help"], ["serve", "--help"], ["jobs", "--help"], ["completions", "bash"]):
        done = subprocess.run([BINARY, *words], capture_output=True, text=True)
        assert done.returncode == 0 and done.stdout


def test_doctor_finds_the_machine_fit(server):
    report = json.loads(server.command("doctor", "--output", "json"))
    assert {check["check"] for check in report} >= {"sandbox", "Python", "data directory", "server"}
    assert all(check["works"] for check in report)


def test_accounts_are_apart(server):
    key = json.loads(server.command("accounts", "add", "210987654321", "--name", "second", "--output", "json"))
    other = {"key": key["AccessKeyId"], "secret": key["SecretAccessKey"]}
    assert server.client("sts", **other).get_caller_identity()["Account"] == "210987654321"
    server.client("s3").create_bucket(Bucket="first-accounts-bucket")
    s3 = server.client("s3", **other)
    try:
        s3.list_objects_v2(Bucket="first-accounts-bucket")
        raise AssertionError("another account's bucket was listed")
    except s3.exceptions.ClientError as error:
        assert error.response["Error"]["Code"] == "AccessDenied"
    assert "210987654321" in server.command("accounts")


def test_a_second_server_is_refused(server):
    done = subprocess.run(
        [BINARY, "serve", "--data-dir", server.data_dir, "--listen", "127.0.0.1:0"], capture_output=True, text=True, timeout=30
    )
    assert done.returncode != 0 and "in use by another modelyard server" in done.stderr
