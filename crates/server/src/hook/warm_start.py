"""An interpreter that is there before its job: imports what is named to it, waits for the job on its standard input, and
becomes it. A job that would notice gets a fresh interpreter in the same place instead."""

import importlib
import importlib.machinery
import json
import os
import sys

from modelyard_ahead import SETS_VARIABLES, import_ahead

NAMES = "imported-modules"
CODE = "/opt/ml/code"

_MOST_SOURCES = 500


def read_names():
    try:
        with open(os.path.join(sys.prefix, NAMES)) as file:
            return file.read().split("\n")
    except OSError:
        return []


def receive():
    """The task, whole; `None` when there is none to come."""
    parts = []
    while part := os.read(0, 1 << 20):
        parts.append(part)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    return json.loads(b"".join(parts)) if parts else None


def sets_variables(folder):
    """Whether any source there looks as if it set environment variables."""
    seen = 0
    for directory, _, files in os.walk(folder):
        for name in files:
            if name.endswith(".py"):
                seen += 1
                with open(os.path.join(directory, name), "rb") as file:
                    if seen > _MOST_SOURCES or SETS_VARIABLES.search(file.read()):
                        return True
    return False


def become(command, environment):
    """Runs the script as `python SCRIPT ARGUMENTS` does."""
    os.environ.clear()
    os.environ.update(environment)
    script = os.path.abspath(command[1])
    shown = script if sys.version_info >= (3, 9) else command[1]
    sys.argv[:] = command[1:]
    if hasattr(sys, "orig_argv"):
        sys.orig_argv[:] = command
    sys.path[0] = os.path.dirname(script)
    # What did not exist when it was looked for does so now.
    sys.path_importer_cache.clear()
    importlib.invalidate_caches()
    sys.modules.pop(__name__, None)
    main = sys.modules["__main__"].__dict__
    builtins = main["__builtins__"]
    main.clear()
    main.update(
        __name__="__main__",
        __doc__=None,
        __package__=None,
        __loader__=importlib.machinery.SourceFileLoader("__main__", shown),
        __spec__=None,
        __annotations__={},
        __builtins__=builtins,
        __file__=shown,
        __cached__=None,
    )
    try:
        with open(script, "rb") as file:
            code = compile(file.read(), shown, "exec", dont_inherit=True)
        exec(code, main)
    except SystemExit:
        raise
    except BaseException as error:
        trace = error.__traceback__.tb_next
        sys.excepthook(type(error), error.with_traceback(trace), trace)
        failed = True
    else:
        failed = False
    # Outside of the handler, so that the exit has no exception behind it.
    if failed:
        sys.exit(1)


def main():
    before = dict(os.environ)
    import_ahead(read_names())
    # Some libraries set variables for themselves; the job finds them set when it imports these libraries.
    set_by_imports = {name: value for name, value in os.environ.items() if before.get(name) != value}
    of_sandbox = {name: before[name] for name in ("HOME", "LANG", "PWD", "LC_CTYPE") if name in before}
    task = receive()
    if task is None:
        return
    command, environment = task["command"], task["environment"]
    os.chdir(task["working_directory"])
    if "PWD" in of_sandbox:
        of_sandbox["PWD"] = task["working_directory"]
    # What this process was started with is what libraries have read; the rest is the job's own.
    started_with = {name: value for name, value in before.items() if name not in of_sandbox}
    is_same = all(environment.get(name) == value for name, value in started_with.items())
    added = environment.keys() - started_with.keys() - of_sandbox.keys()
    if is_same and all(is_of_one_job(name) for name in added) and not sets_variables(CODE):
        become(command, {**set_by_imports, **of_sandbox, **environment})
    else:
        os.execve(command[0], command, {**of_sandbox, **environment})


def is_of_one_job(name):
    """Variables that differ from job to job, and that no library reads when it is imported."""
    return name.startswith(("SM_", "AWS_", "TRAINING_JOB_", "SAGEMAKER_")) or name in (
        "CURRENT_HOST",
        "MASTER_ADDR",
        "MASTER_PORT",
        "S3_ENDPOINT_URL",
    )


if __name__ == "__main__":
    # As a module of its own, since a job takes the place of this one.
    import warm_start

    warm_start.main()
