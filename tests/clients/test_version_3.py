"""Spot jobs with checkpoints, retries, warm pools and updates through version 3 of the SDK."""

import os
import subprocess

from conftest import BASE_IMAGE, Jobs, Server, stop_all

SDK3_PYTHON = os.environ["MODELYARD_SDK3_PYTHON"]

# Counts on from its checkpoint to 10 in each run, and to the end once it begins there.
COUNTER = """
import os, pathlib, threading
place = pathlib.Path("/opt/ml/checkpoints/count")
begun = int(place.read_text()) if place.exists() else 0
print("begins at", begun, flush=True)
if begun < 10:
    place.write_text("10")
    print("waits at 10", flush=True)
    threading.Event().wait(120)
pathlib.Path(os.environ["SM_MODEL_DIR"], "count").write_text("20")
"""

SCRIPT = """
import sys
from sagemaker.core.helper.session_helper import Session, get_execution_role
from sagemaker.core.resources import TrainingJob
from sagemaker.core.shapes import ResourceConfigForUpdate
from sagemaker.train.configs import (
    CheckpointConfig, Compute, OutputDataConfig, RetryStrategy, SessionChainingConfig, SourceCode, StoppingCondition,
)
from sagemaker.train.model_trainer import ModelTrainer

image, bucket = sys.argv[1:]
session = Session()

def trainer(name, script, compute, **options):
    return ModelTrainer(
        training_image=image, base_job_name=name, source_code=SourceCode(source_dir="src", entry_script=script),
        compute=Compute(instance_type="ml.m5.large", instance_count=1, **compute), sagemaker_session=session,
        role=get_execution_role(), output_data_config=OutputDataConfig(s3_output_path=f"s3://{bucket}/models"), **options,
    )

spot = trainer(
    "spot-v3", "count.py", {"enable_managed_spot_training": True},
    checkpoint_config=CheckpointConfig(s3_uri=f"s3://{bucket}/checkpoints/v3"),
    stopping_condition=StoppingCondition(max_runtime_in_seconds=300, max_wait_time_in_seconds=600),
)
spot.with_retry_strategy(RetryStrategy(maximum_retry_attempts=2))
spot.with_session_chaining_config(SessionChainingConfig(enable_session_tag_chaining=True))
spot.train(wait=False)

warm = []
for number in (1, 2):
    one = trainer("warm-v3", "plain.py", {"keep_alive_period_in_seconds": 600})
    one.train(wait=True, logs=False)
    warm.append(one._latest_training_job)
first, second = (TrainingJob.get(job.training_job_name) for job in warm)
print("first", first.warm_pool_status.status, first.warm_pool_status.reused_by_job == second.training_job_name)
# This version of the SDK leaves a 0 out of the request.
second.update(resource_config=ResourceConfigForUpdate(keep_alive_period_in_seconds=1200))
kept = TrainingJob.get(second.training_job_name)
print("second", kept.warm_pool_status.status, kept.resource_config.keep_alive_period_in_seconds)

job = TrainingJob.get(spot._latest_training_job.training_job_name)
job.wait(timeout=120)
job.refresh()
print("spot", job.training_job_name, job.training_job_status, job.enable_managed_spot_training)
print("statuses", *[one.status for one in job.secondary_status_transitions])
print("wait time", job.stopping_condition.max_wait_time_in_seconds, "retries", job.retry_strategy.maximum_retry_attempts)
"""


def test_the_model_trainer_has_all_of_it(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/modelyard.toml").write_text("[capacity]\nspot_interrupt_after_seconds = [3, 3]\n")
    (tmp_path / "src").mkdir()
    (tmp_path / "src/count.py").write_text(COUNTER)
    (tmp_path / "src/plain.py").write_text("print('ran')\n")
    (tmp_path / "fit.py").write_text(SCRIPT)
    server = Server(tmp_path / "data").start()
    try:
        role = server.client("iam").get_role(RoleName="ModelyardExecutionRole")["Role"]["Arn"]
        server.client("s3").create_bucket(Bucket="version-3")
        done = subprocess.run(
            [SDK3_PYTHON, "fit.py", BASE_IMAGE, "version-3"],
            cwd=tmp_path, env=server.environment(), capture_output=True, text=True, timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        told = done.stdout.splitlines()
        for line in ("first Reused True", "second Available 1200", "wait time 600 retries 2"):
            assert line in told, done.stdout
        (spot,) = (line.split()[1:] for line in told if line.startswith("spot "))
        assert spot[1:] == ["Completed", "True"], done.stdout
        (statuses,) = (line.split()[1:] for line in told if line.startswith("statuses "))
        assert statuses.count("Interrupted") == statuses.count("Restarting") == 1, statuses
        begun = [line for line in Jobs(server, "version-3", role).lines(spot[0]) if line.startswith("begins at")]
        assert begun == ["begins at 0", "begins at 10"]
    finally:
        stop_all(server)
