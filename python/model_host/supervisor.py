"""The parent process: starts the workers, replaces those that end or hang, and passes an asked-for end on."""
import os
import signal
import socket
import sys
import time
import traceback

from model_host import preload, standby, state
from model_host.frames import Connection, ProtocolError
from model_host.many_models import ManyModelsWorker
from model_host.worker import EXIT_LOAD_FAILED, Worker, failure_text, load

_SIGNALS = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT}
_LOOK_SECONDS = 1.0
_FIRST_BACKOFF_SECONDS = 0.1
_LONGEST_BACKOFF_SECONDS = 30.0
# A worker has this long to notice by itself that its request was given up.
_OVERRUN_SECONDS = 0.5


class Supervisor:
    """Keeps the wanted number of workers alive."""

    def __init__(self, options):
        self._options = options
        self._listener = listen(options.socket, options.workers)
        self._states = state.make(options.workers)
        self._pids = {}
        self._starts = {}
        self._failures = [0] * options.workers
        self._ever_ready = False
        self._draining = False
        # Loaded before the workers are forked; None where each loads it for itself.
        self._model = None

    def run(self):
        """Returns the exit code."""
        failure = self._load_once()
        if failure is not None:
            return self._give_up(failure)
        # Signals are taken with sigtimedwait; no handler can then interrupt anything.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        die_with_parent = parent_death_signal()
        for slot in range(self._options.workers):
            self._fork(slot, die_with_parent, self._options.standby)
        while self._pids or self._starts:
            received = signal.sigtimedwait(_SIGNALS, self._next_wait())
            if received is not None and received.si_signo in (signal.SIGTERM, signal.SIGINT):
                self._drain()
            failure = self._reap()
            if failure is not None:
                return self._give_up(failure)
            self._end_hanging()
            for slot in [slot for slot, at in self._starts.items() if at <= time.monotonic()]:
                del self._starts[slot]
                self._fork(slot, die_with_parent)
        return 0

    def _load_once(self):
        """Loads the model here, if there are several workers to share it. Returns a failure text if it cannot be loaded."""
        if self._options.models_dir or self._options.load != "once" or self._options.workers < 2:
            return None
        witness = preload.Witness()
        if not witness.is_usable():
            return None
        if self._options.standby:
            standby.import_ahead(self._options)
            self._load_each_if_needed(witness)
            standby.wait_for_client(self._listener)
        try:
            self._model = load(self._options)
        except Exception as error:
            return failure_text(error)
        self._load_each_if_needed(witness)
        return None

    @staticmethod
    def _load_each_if_needed(witness):
        """Does not return where what was imported or loaded cannot be shared."""
        reason = witness.reason_against_fork()
        if reason is not None:
            print("INFO: the model cannot be shared by the workers, since {}; each loads it for itself.".format(reason),
                  file=sys.stderr, flush=True)
            witness.start_anew()

    def _next_wait(self):
        soonest = min(self._starts.values(), default=time.monotonic() + _LOOK_SECONDS)
        return min(_LOOK_SECONDS, max(0.0, soonest - time.monotonic()))

    def _fork(self, slot, die_with_parent, stands_by=False):
        self._states[slot].reset()
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        pid = os.fork()
        if pid:
            self._pids[pid] = slot
            return
        code = 1
        try:
            die_with_parent()
            if os.getppid() == parent:
                code = self._worker(slot, stands_by).run()
            sys.stdout.flush()
            sys.stderr.flush()
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            # Not sys.exit: what the parent has registered for its end is not the worker's business.
            os._exit(code)

    def _worker(self, slot, stands_by):
        if self._options.models_dir:
            return ManyModelsWorker(self._options, self._listener, self._states[slot])
        return Worker(self._options, self._listener, self._states[slot], self._model, stands_by)

    def _reap(self):
        """Collects ended workers. Returns a failure text if the model can never be served."""
        self._ever_ready = self._ever_ready or any(each.is_ready() for each in self._states)
        while self._pids:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            slot = self._pids.pop(pid, None)
            if slot is None or self._draining:
                continue
            code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
            what = "exit code {}".format(code) if code is not None else "signal {}".format(os.WTERMSIG(status))
            if not self._ever_ready:
                failure = self._states[slot].failure()
                return failure or "A model worker ended with {} while it loaded the model.".format(what)
            was_ready = self._states[slot].is_ready()
            self._failures[slot] = 1 if was_ready and code != EXIT_LOAD_FAILED else self._failures[slot] + 1
            wait = min(_LONGEST_BACKOFF_SECONDS, _FIRST_BACKOFF_SECONDS * 2 ** min(self._failures[slot] - 1, 20))
            if was_ready and self._failures[slot] == 1:
                wait = 0.0
            print("WARNING: worker {} ended with {}; a new one starts.".format(pid, what), file=sys.stderr, flush=True)
            self._starts[slot] = time.monotonic() + wait
        return None

    def _end_hanging(self):
        for pid, slot in self._pids.items():
            limit = self._states[slot].limit_seconds(self._options.model_timeout_seconds)
            if self._states[slot].busy_seconds() > limit + _OVERRUN_SECONDS:
                print("ERROR: worker {} did not answer within {:g} seconds and is ended.".format(
                    pid, limit), file=sys.stderr, flush=True)
                os.kill(pid, signal.SIGKILL)

    def _drain(self):
        self._draining = True
        self._starts.clear()
        for pid in self._pids:
            os.kill(pid, signal.SIGTERM)

    def _give_up(self, failure):
        for pid in self._pids:
            os.kill(pid, signal.SIGKILL)
        for pid in list(self._pids):
            os.waitpid(pid, 0)
        self._answer_pings(failure)
        print("ERROR: the model host gives up: no worker could load the model.", file=sys.stderr, flush=True)
        return 1

    def _answer_pings(self, failure):
        """Tells the data plane the reason, on every connection that waits."""
        self._listener.settimeout(0.5)
        try:
            for _ in range(self._options.workers):
                stream, _ = self._listener.accept()
                stream.settimeout(0.5)
                connection = Connection(stream)
                try:
                    if connection.read_request() is not None:
                        connection.send_answer({"status": 503, "error": failure})
                finally:
                    connection.close()
        except (OSError, ProtocolError):
            pass  # nobody waits any more; the log has the reason too


def listen(path, workers):
    """A listening socket at the path; a stale one there is replaced."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    folder, name = os.path.split(os.path.abspath(path))
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # Through the handle, because the path of a socket must not be longer than 107 bytes.
        listener.bind("/proc/self/fd/{}/{}".format(handle, name))
    finally:
        os.close(handle)
    listener.listen(max(16, 4 * workers))
    return listener


def parent_death_signal():
    """Returns a function that makes the calling process end when its parent does."""
    try:
        import ctypes

        prctl = ctypes.CDLL(None, use_errno=True).prctl
    except (ImportError, OSError, AttributeError):
        return lambda: None
    return lambda: prctl(1, signal.SIGKILL, 0, 0, 0)
