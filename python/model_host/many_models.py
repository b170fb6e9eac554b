"""A worker that has many models: it loads and unloads them while it answers, each from a folder of its own."""
import ctypes
import gc
import importlib
import os
import signal
import sys
import threading

from model_host import requirements
from model_host.frames import Connection, ProtocolError
from model_host.model import Model
from model_host.worker import Drained, Worker, failure_text, time_limit

INVOKE = "invoke"
LOAD = "load"
_NOT_LOADED = "the model is not loaded"
_SIGNALS = {signal.SIGTERM, signal.SIGCHLD, signal.SIGINT}
# The end of a traceback says more than its beginning.
_MOST_TEXT = 64 * 1024
# What models of a framework share: imported before the first of them is measured.
_SHARED = {
    "scikit-learn": ("numpy", "joblib", "sklearn.base"),
    "xgboost": ("numpy", "xgboost"),
    "pytorch": ("numpy", "torch"),
    "huggingface": ("numpy", "torch"),
}


class ManyModelsWorker(Worker):
    """Two threads with a connection each: one answers requests, one loads and unloads."""

    def __init__(self, options, listener, state):
        super().__init__(options, listener, state)
        # Tells this process from all others that have been or will be behind the socket.
        self._number = int.from_bytes(os.urandom(7), "big")
        self._models = {}
        self._sizes = {}
        self._has_shared = False

    def run(self):
        """Returns the exit code."""
        # Threads inherit the mask: signals are for the main thread, whose waiting they end.
        loader = threading.Thread(target=self._load_for_ever, name="loader", daemon=True)
        loader.start()
        self._state.set_idle()
        signal.signal(signal.SIGTERM, self._on_terminate)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        try:
            while True:
                self._serve_requests(Connection(self._accept()))
        except Drained:
            return 0

    def _greet(self, connection, role):
        connection.send_answer({"status": 200, "worker": self._number, "role": role})

    def _serve_requests(self, connection):
        try:
            while True:
                request = self._wait_for(connection.read_request)
                if request is None:
                    return
                header, body = request
                kind = header.get("kind")
                if kind == "ping":
                    self._greet(connection, INVOKE)
                elif kind == "invoke":
                    model = self._models.get(header.get("model"))
                    if model is None:
                        connection.send_answer({"status": 404, "error": _NOT_LOADED})
                        continue
                    self._state.set_busy(time_limit(header))
                    self._answer(connection, model.invoke(header, body))
                    self._state.set_idle()
                else:
                    raise ProtocolError("there is no kind of request called {!r}".format(kind))
        except ProtocolError as error:
            print("WARNING: a connection was closed: {}".format(error), file=sys.stderr, flush=True)
        except OSError:
            pass  # the data plane gave the request up
        finally:
            self._state.set_idle()
            connection.close()

    def _load_for_ever(self):
        while True:
            stream = self._listener.accept()[0]
            stream.settimeout(None)
            connection = Connection(stream)
            try:
                while True:
                    request = connection.read_request()
                    if request is None:
                        break
                    self._serve_loading(connection, request[0])
            except ProtocolError as error:
                print("WARNING: a connection was closed: {}".format(error), file=sys.stderr, flush=True)
            except OSError:
                pass  # the data plane went away
            finally:
                connection.close()

    def _serve_loading(self, connection, header):
        kind = header.get("kind")
        if kind == "ping":
            self._greet(connection, LOAD)
        elif kind == "load":
            connection.send_answer(self._load(header))
        elif kind == "unload":
            connection.send_answer({"status": 200, "memory_bytes": self._unload([header.get("model")])})
        else:
            raise ProtocolError("there is no kind of request called {!r}".format(kind))

    def _load(self, header):
        if header.get("forgets"):
            self._unload(list(self._models))
        name, model_dir = header.get("model"), header.get("model_dir")
        if name not in self._models:
            try:
                requirements.check(os.path.join(model_dir, "code"))
                self._import_shared()
                before = resident_bytes()
                model = load_apart(self._options, model_dir)
            except BaseException as error:
                # Even a script that ends the process must not take the other models along.
                return {"status": 500, "error": failure_text(error)[-_MOST_TEXT:]}
            self._sizes[name] = max(0, resident_bytes() - before)
            self._models[name] = model
        return {"status": 200, "memory_bytes": self._sizes[name]}

    def _import_shared(self):
        if self._has_shared:
            return
        self._has_shared = True
        for name in _SHARED.get(self._options.framework, ()):
            try:
                importlib.import_module(name)
            except ImportError:
                pass  # a model that needs it says so

    def _unload(self, names):
        """Returns the memory that the models took."""
        given_back = sum(self._sizes.pop(name, 0) for name in names)
        # A request that is answered now keeps its model until it is.
        models = [self._models.pop(name, None) for name in names]
        del models
        gc.collect()
        try:
            ctypes.CDLL(None).malloc_trim(0)
        except (OSError, AttributeError):
            pass  # a C library that gives memory back by itself
        return given_back


def load_apart(options, model_dir):
    """Loads a model whose modules are its own: others may have files of the same names."""
    path = list(sys.path)
    roots = tuple(
        os.path.realpath(folder) + os.sep for folder in (os.path.dirname(model_dir), options.code_dir) if folder
    )
    known = set(sys.modules)
    try:
        return Model(options.framework, model_dir, options.code_dir)
    finally:
        sys.path[:] = path
        for name in set(sys.modules) - known:
            file = getattr(sys.modules.get(name), "__file__", None)
            if file and os.path.realpath(file).startswith(roots):
                sys.modules.pop(name, None)
        for entry in [entry for entry in sys.path_importer_cache if entry.startswith(roots)]:
            sys.path_importer_cache.pop(entry, None)


def resident_bytes():
    """The memory of this process."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
