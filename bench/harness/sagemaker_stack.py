"""The serving stack of SageMaker's own containers, started as they do: gunicorn, and nginx in front of it."""

import getpass
import importlib.util
import os
import pathlib
import shutil
import sys

from harness import BENCH
from harness.processes import Process, clean_environment, free_port

# As many for every side.
WORKERS = os.cpu_count()
SOCKET = "gunicorn.sock"
# What a container waits for its model by default, in seconds.
READ_TIMEOUT = 60


def sagemaker_stack(folder, script):
    """Serves the model in `folder/opt/model` with a script's functions; returns process, address, and seconds until it answered."""
    address = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "gunicorn", "--timeout", READ_TIMEOUT, "-k", "gevent", "-b", address, "-b", f"unix:{folder / SOCKET}"]
    command += ["--worker-connections", 1000 * WORKERS, "-w", WORKERS, "--log-level", "info", "--no-control-socket", "sagemaker_script:app"]
    environment = clean_environment(
        PYTHONPATH=os.pathsep.join([str(BENCH / "peers"), str(script.parent)]),
        PYTHONWARNINGS="ignore",
        SAGEMAKER_BASE_DIR=folder / "opt",
        SAGEMAKER_PROGRAM=script.name,
        SAGEMAKER_SUBMIT_DIRECTORY=script.parent,
        SAGEMAKER_MODEL_SERVER_WORKERS=WORKERS,
    )
    return started(command, folder / "gunicorn.log", environment, address)


def nginx_in_front(folder):
    """nginx before the stack that runs in `folder`, configured as `sagemaker_containers` does it; returns process and address."""
    nginx = shutil.which("nginx", path=os.environ.get("PATH", "") + os.pathsep + "/usr/sbin")
    if nginx is None:
        raise SystemExit("SageMaker's containers serve through nginx, which is not installed: apt-get install nginx-light")
    address = f"127.0.0.1:{free_port()}"
    package = pathlib.Path(importlib.util.find_spec("sagemaker_containers").origin).parent
    configuration = (package / "etc/nginx.conf.template").read_text()
    # Paths of this run in place of the container's, and the loopback address alone.
    for found, meant in {
        "%NGINX_HTTP_PORT%": address,
        "%NGINX_PROXY_READ_TIMEOUT%": str(READ_TIMEOUT),
        "/tmp/gunicorn.sock": str(folder / SOCKET),
        "/tmp/nginx.pid": str(folder / "nginx.pid"),
    }.items():
        if found not in configuration:
            raise SystemExit(f"the configuration of nginx in sagemaker_containers has no {found}")
        configuration = configuration.replace(found, meant)
    # Its workers must reach the socket.
    (folder / "nginx.conf").write_text(f"user {getpass.getuser()};\n{configuration}")
    process, address, _ = started([nginx, "-c", folder / "nginx.conf"], folder / "nginx.log", clean_environment(), address)
    return process, address


def started(command, log, environment, address):
    """Process, address, and the seconds until it answered; ended again when it does not."""
    process = Process(command, log, environment)
    try:
        ready = process.wait_until_answers(address, "/ping")
    except BaseException:
        process.end()
        raise
    return process, address, ready
