"""One worker process: loads the model, then answers one request at a time."""
import gc
import signal
import sys
import traceback

from model_host.errors import HostError
from model_host.frames import Connection, ProtocolError
from model_host.model import Model, as_bytes

EXIT_LOAD_FAILED = 3


class _Drained(Exception):
    """The supervisor asked for the end, and no request is in work."""


class Worker:
    """Serves connections from the listening socket that all workers share, one after another."""

    def __init__(self, options, listener, state):
        self._options = options
        self._listener = listener
        self._state = state
        self._draining = False
        self._waiting = False

    def run(self):
        """Returns the exit code."""
        # Until there is something to answer, an asked-for end is an end at once.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGCHLD, signal.SIGINT})
        try:
            model = Model(self._options.framework, self._options.model_dir, self._options.code_dir)
        except BaseException as error:
            return self._load_failed(error)
        # Objects of the loaded model will not become garbage; the collector need not look at them again and again.
        gc.collect()
        gc.freeze()
        self._state.set_idle()
        signal.signal(signal.SIGTERM, self._on_terminate)
        try:
            while True:
                self._serve(model, Connection(self._accept()))
        except _Drained:
            return 0

    def _load_failed(self, error):
        if isinstance(error, HostError):
            text = str(error)
        else:
            traceback.print_exception(type(error), error, error.__traceback__)
            text = "The model could not be loaded.\n" + "".join(
                traceback.format_exception(type(error), error, error.__traceback__)
            )
        print("ERROR: " + text.splitlines()[0], file=sys.stderr, flush=True)
        self._state.set_failed(text)
        return EXIT_LOAD_FAILED

    def _on_terminate(self, _signal, _frame):
        self._draining = True
        if self._waiting:
            raise _Drained

    def _wait_for(self, receive):
        """Runs a blocking call that an asked-for end may interrupt."""
        self._waiting = True
        if self._draining:
            raise _Drained
        try:
            return receive()
        finally:
            self._waiting = False

    def _accept(self):
        stream = self._wait_for(self._listener.accept)[0]
        # The script may have set a default time limit for sockets; it means its own.
        stream.settimeout(None)
        return stream

    def _serve(self, model, connection):
        """Answers the requests of one connection until the data plane closes it."""
        try:
            while True:
                request = self._wait_for(connection.read_request)
                if request is None:
                    return
                header, body = request
                kind = header.get("kind")
                if kind == "invoke":
                    self._state.set_busy()
                    self._answer(connection, model.invoke(header, body))
                    self._state.set_idle()
                elif kind == "ping":
                    connection.send_answer({"status": 200})
                else:
                    raise ProtocolError("there is no kind of request called {!r}".format(kind))
        except ProtocolError as error:
            print("WARNING: a connection was closed: {}".format(error), file=sys.stderr, flush=True)
        except OSError:
            pass  # the data plane gave the request up
        finally:
            self._state.set_idle()
            connection.close()

    def _answer(self, connection, answer):
        if answer.chunks is None:
            # Written before the answer is, so that it stands in the log when the caller goes on.
            sys.stdout.flush()
            connection.send_answer(answer.header(), answer.body)
        else:
            self._stream(connection, answer)

    def _stream(self, connection, answer):
        connection.begin_chunks(answer.header())
        try:
            while True:
                try:
                    chunk = next(answer.chunks)
                except StopIteration:
                    break
                except Exception as error:
                    traceback.print_exception(type(error), error, error.__traceback__)
                    connection.fail_chunks("{}: {}".format(type(error).__name__, error))
                    return
                connection.send_chunk(as_bytes(chunk))
                # Each chunk has the full time limit.
                self._state.set_busy()
            sys.stdout.flush()
            connection.end_chunks()
        finally:
            close = getattr(answer.chunks, "close", None)
            if close:
                close()
