"""A Modelyard server on a data directory of its own, and its clients."""

import io
import json
import sys
import tarfile
import time

import boto3
from botocore.config import Config

from harness.processes import Process, clean_environment, end_all_that_mention

SKLEARN_IMAGE = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn:1.2-1-cpu-py3"


# Jobs and endpoints run on this very interpreter, so that peers can run on the same.
THIS_INTERPRETER = f"interpreter = {json.dumps(sys.executable)}"
# The server builds an environment of its own, as it does for users.
OWN_ENVIRONMENT = 'packages = ["joblib"]'


class Modelyard(Process):
    """The server; `environment` is what its image catalogue says of the benchmarks' image, `listen` an address that it had before."""

    def __init__(self, binary, folder, *flags, environment=THIS_INTERPRETER, listen="127.0.0.1:0"):
        self.folder = folder
        self.data_dir = folder / "data"
        images = folder / "images.toml"
        images.write_text(
            "[[image]]\n"
            'name = "benchmark"\n'
            "pattern = '.*/sagemaker-scikit-learn:.*'\n"
            'framework = "scikit-learn"\n'
            f"{environment}\n"
        )
        command = [binary, "serve", "--data-dir", self.data_dir, "--listen", listen, "--images", images, *flags]
        super().__init__(command, folder / "server.log", clean_environment(), read_output=True)
        self.endpoint = self.line_with(" is ready at ").split(" is ready at ")[1]
        self.address = self.endpoint.removeprefix("http://")
        self.ready_seconds = self.wait_until_answers(self.address, "/_modelyard/health")
        # The last line of the greeting follows the connection file.
        self.line_with("your_script.py")
        self.connection = json.loads((self.data_dir / "connection.json").read_text())
        self.role = f"arn:aws:iam::{self.connection['account']}:role/ModelyardExecutionRole"
        self.bucket = f"sagemaker-us-east-1-{self.connection['account']}"

    def end(self):
        """Ends the server and what it started: jobs and endpoints outlive it on purpose."""
        super().end()
        end_all_that_mention(self.folder)

    def client(self, service):
        """A boto3 client."""
        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            region_name=self.connection["region"],
            aws_access_key_id=self.connection["access_key_id"],
            aws_secret_access_key=self.connection["secret_access_key"],
            config=Config(retries={"max_attempts": 0}, read_timeout=60),
        )

    def serve(self, name, container, **variant):
        """Creates a model of one container, its configuration and its endpoint; returns the seconds until it was in service."""
        sagemaker = self.client("sagemaker")
        sagemaker.create_model(ModelName=name, ExecutionRoleArn=self.role, PrimaryContainer=container)
        if "ServerlessConfig" not in variant:
            variant = {"InitialInstanceCount": 1, "InstanceType": "ml.m5.large", **variant}
        variant = {"VariantName": "AllTraffic", "ModelName": name, **variant}
        sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
        started = time.perf_counter()
        sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)

        def settled():
            endpoint = sagemaker.describe_endpoint(EndpointName=name)
            return endpoint if endpoint["EndpointStatus"] in ("InService", "Failed") else None

        endpoint = wait(f"{name} is in service", settled, seconds=300, pause_seconds=0.002)
        if endpoint["EndpointStatus"] != "InService":
            raise SystemExit(f"the endpoint failed: {endpoint.get('FailureReason')}")
        return time.perf_counter() - started

    def remove(self, name):
        """Deletes an endpoint and what it was made of, when all have the same name."""
        sagemaker = self.client("sagemaker")
        sagemaker.delete_endpoint(EndpointName=name)

        def is_gone():
            return all(endpoint["EndpointName"] != name for endpoint in sagemaker.list_endpoints(NameContains=name)["Endpoints"])

        wait(f"{name} is gone", is_gone, pause_seconds=0.01)
        sagemaker.delete_endpoint_config(EndpointConfigName=name)
        sagemaker.delete_model(ModelName=name)

    def upload(self, key, files):
        """Puts a tar.gz of names and bytes into the bucket; returns its URI."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
            for name, data in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        s3 = self.client("s3")
        s3.create_bucket(Bucket=self.bucket)
        s3.put_object(Bucket=self.bucket, Key=key, Body=buffer.getvalue())
        return f"s3://{self.bucket}/{key}"

    def training_job(self, name, source):
        """The request of a training job that runs `train.py` of an uploaded archive."""
        return {
            "TrainingJobName": name,
            "AlgorithmSpecification": {"TrainingImage": SKLEARN_IMAGE, "TrainingInputMode": "File"},
            "RoleArn": self.role,
            "HyperParameters": {"sagemaker_program": '"train.py"', "sagemaker_submit_directory": json.dumps(source)},
            "OutputDataConfig": {"S3OutputPath": f"s3://{self.bucket}/models"},
            "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 10},
            "StoppingCondition": {"MaxRuntimeInSeconds": 300},
        }


def wait(what, condition, seconds=60, pause_seconds=0.05):
    """Calls until the result is true; returns it."""
    end = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > end:
            raise SystemExit(f"not within {seconds} s: {what}")
        time.sleep(pause_seconds)
