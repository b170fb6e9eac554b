"""Loading the model once, before the workers are forked, so that they share its memory and a new one is ready at once.

A process that has threads or open files cannot be forked safely: locks that a thread holds stay locked for ever, and two processes
would read from one socket. Where a model brings such things, the host starts anew and each worker loads it for itself.
"""
import os
import sys

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
# Opened by libraries for good, without a place in them that is read on.
_HARMLESS = {"/dev/null", "/dev/urandom", "/dev/random"}


def limit_threads(workers):
    """Numeric libraries start a thread for each CPU; in each of several workers that is too many. What is set already stays."""
    if workers > 1:
        threads = str(max(1, len(os.sched_getaffinity(0)) // workers))
        for name in _THREAD_VARIABLES:
            os.environ.setdefault(name, threads)


class Witness:
    """What the process has before the model is loaded."""

    def __init__(self):
        self._files = _open_files()
        # The script may change both.
        self._environment = dict(os.environ)
        self._arguments = list(sys.argv[1:])

    def is_usable(self):
        """Whether it can be seen what a model brings."""
        return self._files is not None and _threads() == 1

    def reason_against_fork(self):
        """What the model has brought that two processes cannot share, or None."""
        if _threads() != 1:
            return "it keeps threads"
        for number, target in (_open_files() or {}).items():
            if target not in _HARMLESS and self._files.get(number) != target:
                return "it keeps {} open".format(target)
        return None

    def start_anew(self):
        """Becomes a host whose workers load the model for themselves."""
        sys.stdout.flush()
        sys.stderr.flush()
        command = [sys.executable, "-m", "model_host"] + self._arguments + ["--load", "each"]
        os.execve(sys.executable, command, self._environment)


def _threads():
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return None


def _open_files():
    """Targets of open descriptors by their number, or None where they cannot be seen."""
    try:
        numbers = os.listdir("/proc/self/fd")
    except OSError:
        return None
    files = {}
    for number in numbers:
        try:
            files[number] = os.readlink("/proc/self/fd/" + number)
        except OSError:
            pass  # the descriptor of the listing itself, closed by now
    return files


def in_child():
    """What a forked worker must not have in common with the others: the random numbers. Python's own module sees to itself."""
    random = sys.modules.get("numpy.random")
    if random is not None:
        random.seed()
