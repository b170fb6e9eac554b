"""The options that every benchmark takes."""

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

from harness import ROOT


def parse(description, **flags):
    """Parses the command line and adds `folder`: a fresh folder for this run, in place of that of the last one.

    `flags` are a benchmark's own: the arguments of `add_argument` by name.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--modelyard", type=Path, required=True, help="the server's binary; numbers of a debug build mean little")
    parser.add_argument(
        "--work-dir",
        type=Path,
        default=ROOT / "target/bench",
        help="folder for data directories, on the disk to be measured [default: target/bench]",
    )
    for name, arguments in flags.items():
        parser.add_argument("--" + name.replace("_", "-"), **arguments)
    options = parser.parse_args()
    options.modelyard = options.modelyard.resolve()
    if not os.access(options.modelyard, os.X_OK):
        sys.exit(f"{options.modelyard} is not a program; build it with: cargo build --release --package server")
    options.work_dir.mkdir(parents=True, exist_ok=True)
    prefix = f"{Path(sys.argv[0]).stem}-"
    for earlier in options.work_dir.glob(prefix + "*"):
        shutil.rmtree(earlier, ignore_errors=True)
    options.folder = Path(tempfile.mkdtemp(prefix=prefix, dir=options.work_dir.resolve()))
    return options
