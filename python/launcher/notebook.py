"""`amazon_sagemaker_scheduler` of the images that notebook jobs run in: runs a notebook with parameters and keeps what came of it.

The job's environment says what to run, as the SDK's NotebookJobStep writes it; hyperparameters are the notebook's parameters.
"""

import json
import os
import re
import shutil
import sys

HYPERPARAMETERS = "/opt/ml/input/config/hyperparameters.json"
# The job's own copy of its input, where the notebook runs: inputs themselves are read-only.
WORKPLACE = "/opt/ml/code"
OUTPUT = "/opt/ml/output/data"
FAILURE = "/opt/ml/output/failure"
# Set in the process that the initialization script has prepared.
PREPARED = "SM_NOTEBOOK_IS_PREPARED"


class Refusal(Exception):
    """Why the notebook is not run, or what ended it; a sentence for the user."""


def setting(name):
    value = os.environ.get(name)
    if not value:
        raise Refusal(f"the variable {name} must be in Environment, as the SDK's NotebookJobStep writes it.")
    return value


def file_name(name):
    """A setting that names a file of the input folder."""
    value = setting(name)
    if os.path.basename(value) != value or value in (".", ".."):
        raise Refusal(f"{name}: {value!r} must be the name of a file, without a folder.")
    return value


def prepare():
    """Copies the input, and begins anew in a shell that has read the initialization script."""
    source = setting("SM_EXECUTION_INPUT_PATH")
    if not os.path.isdir(source):
        raise Refusal(f"SM_EXECUTION_INPUT_PATH: there is no folder {source}; a channel of that name must bring the notebook.")
    shutil.copytree(source, WORKPLACE, dirs_exist_ok=True)
    os.chdir(WORKPLACE)
    os.environ[PREPARED] = "1"
    if os.environ.get("SM_INIT_SCRIPT"):
        script = file_name("SM_INIT_SCRIPT")
        if not os.path.exists(script):
            raise Refusal(f"SM_INIT_SCRIPT: there is no {script!r} beside the notebook.")
        print(f"notebook: reading {script}", flush=True)
        line = 'source "./$SM_INIT_SCRIPT" || { status=$?; echo "notebook: $SM_INIT_SCRIPT ended with status $status" >&2; exit $status; }'
        os.execvp("bash", ["bash", "-c", f'{line}; exec "$0" "$@"', sys.executable, *sys.argv])


def parameters():
    try:
        with open(HYPERPARAMETERS, encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        return {}


def kernel(name):
    """A kernel of the environment."""
    from jupyter_client.kernelspec import KernelSpecManager

    there = sorted(KernelSpecManager().find_kernel_specs())
    if name in there:
        return name
    raise Refusal(f"SM_KERNEL_NAME: this environment has no kernel {name!r}; it has {', '.join(there) or 'none'}.")


def plain(text):
    """Text without the colours that a terminal would show."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def execute():
    try:
        import papermill
    except ImportError:
        raise Refusal(
            "the packages papermill and ipykernel are not in the environment of this image: add them to the packages of the "
            "image in the image catalogue (docs/images.md)."
        ) from None
    source = file_name("SM_INPUT_NOTEBOOK_NAME")
    if not os.path.exists(source):
        raise Refusal(f"SM_INPUT_NOTEBOOK_NAME: there is no {source!r} in the input.")
    os.makedirs(OUTPUT, exist_ok=True)
    target = os.path.join(OUTPUT, file_name("SM_OUTPUT_NOTEBOOK_NAME"))
    chosen = kernel(setting("SM_KERNEL_NAME"))
    try:
        papermill.execute_notebook(
            source,
            target,
            parameters=parameters(),
            kernel_name=chosen,
            cwd=os.getcwd(),
            progress_bar=False,
            stdout_file=sys.stdout,
            stderr_file=sys.stderr,
        )
    except papermill.exceptions.PapermillExecutionError as error:
        trace = plain("\n".join(error.traceback))
        print(trace, file=sys.stderr, flush=True)
        raise Refusal(f"cell In [{error.exec_count}] of {source} failed: {error.ename}: {error.evalue}\n{trace}") from None


def main():
    # Jupyter keeps its own files out of the way, where the job may write.
    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"):
        os.environ.setdefault(name, f"/tmp/.notebook/{name.lower()}")
    try:
        if PREPARED not in os.environ:
            prepare()
        execute()
    except Refusal as refusal:
        print(f"notebook: {str(refusal).splitlines()[0]}", file=sys.stderr, flush=True)
        with open(FAILURE, "w", encoding="utf-8") as file:
            file.write(str(refusal))
        sys.exit(1)


if __name__ == "__main__":
    main()
