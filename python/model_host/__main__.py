"""`python -m model_host`: see --help."""
import argparse
import logging
import os
import sys

from model_host import preload
from model_host.supervisor import Supervisor


def main():
    environment = os.environ
    parser = argparse.ArgumentParser(
        prog="model_host",
        description="Loads a model and answers invocations that come over a Unix socket.",
    )
    parser.add_argument("--socket", default=environment.get("MODEL_HOST_SOCKET"), help="path of the socket to listen on")
    parser.add_argument("--workers", type=int, default=1, help="how many processes answer")
    parser.add_argument("--load", choices=("once", "each"), default=environment.get("MODEL_HOST_LOAD") or "once",
                        help="whether workers share a model that was loaded before they started, if it can be shared, or each loads it")
    parser.add_argument("--framework", default="python", help="whose defaults complete the inference script")
    parser.add_argument("--model-dir", default="/opt/ml/model", help="folder of the unpacked model")
    parser.add_argument("--models-dir", help="folder below which many models come and go; workers load those that they are told to")
    parser.add_argument("--code-dir", help="folder of the inference script, if it is not in the model")
    parser.add_argument("--model-timeout-seconds", type=float, default=60.0, help="a worker that takes longer is ended")
    parser.add_argument("--standby", action="store_true",
                        help="import what is named in `imports` beside the socket, and load the model when somebody connects")
    options = parser.parse_args()
    if not options.socket:
        parser.error("give --socket or set MODEL_HOST_SOCKET")
    if options.workers < 1:
        parser.error("--workers must be 1 or more")
    if options.standby and options.models_dir:
        parser.error("--standby is for one model")
    if options.load not in ("once", "each"):
        parser.error("MODEL_HOST_LOAD must be once or each")
    preload.limit_threads(options.workers)
    # Lines reach the log when they are printed, not when a buffer is full.
    sys.stdout.reconfigure(line_buffering=True)
    level = environment.get("SAGEMAKER_CONTAINER_LOG_LEVEL", "")
    logging.basicConfig(
        level=int(level) if level.isdigit() else logging.INFO,
        format="%(asctime)s %(levelname)s - %(name)s - %(message)s",
    )
    return Supervisor(options).run()


if __name__ == "__main__":
    sys.exit(main())
