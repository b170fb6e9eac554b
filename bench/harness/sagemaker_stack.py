"""The serving stack of SageMaker's own containers, started as they do, but without nginx in front."""

import os
import sys

from harness import BENCH
from harness.processes import Process, clean_environment, free_port

# As many for every side.
WORKERS = os.cpu_count()


def sagemaker_stack(folder, script):
    """Serves the model in `folder/opt/model` with a script's functions; returns process, address, and seconds until it answered."""
    address = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "gunicorn", "--timeout", "60", "-k", "gevent", "-b", address]
    command += ["--worker-connections", 1000 * WORKERS, "-w", WORKERS, "--log-level", "info", "--no-control-socket", "sagemaker_script:app"]
    environment = clean_environment(
        PYTHONPATH=os.pathsep.join([str(BENCH / "peers"), str(script.parent)]),
        PYTHONWARNINGS="ignore",
        SAGEMAKER_BASE_DIR=folder / "opt",
        SAGEMAKER_PROGRAM=script.name,
        SAGEMAKER_SUBMIT_DIRECTORY=script.parent,
        SAGEMAKER_MODEL_SERVER_WORKERS=WORKERS,
    )
    process = Process(command, folder / "gunicorn.log", environment)
    try:
        ready = process.wait_until_answers(address, "/ping")
    except BaseException:
        process.end()
        raise
    return process, address, ready
