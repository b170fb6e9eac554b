"""Python environments of peers whose pins do not go with those of the others."""

import shutil
import subprocess
import sys

from harness import ROOT


def environment(name, pins):
    """The folder of an environment with these packages, which is made when it is not there as a whole."""
    folder = ROOT / ".venvs" / name
    mark = folder / "installed.txt"
    wanted = "\n".join(pins)
    if mark.exists() and mark.read_text() == wanted:
        return folder
    python = folder / "bin/python"
    uv = shutil.which("uv")
    if uv:
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, folder], check=True)
        subprocess.run([uv, "pip", "install", "--quiet", "--python", python, *pins], check=True)
    else:
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *pins], check=True)
    # Last, so that what was cut off is made anew.
    mark.write_text(wanted)
    return folder
