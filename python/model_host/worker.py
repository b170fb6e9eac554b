"""One worker process: loads the model, then answers one request at a time."""
import gc
import signal
import sys
import traceback

from model_host import preload, standby
from model_host.errors import HostError
from model_host.frames import Connection, ProtocolError, split_batch
from model_host.model import Model, as_bytes

EXIT_LOAD_FAILED = 3
# How many requests may wait here to be answered one by one; the data plane sends so many only as long as they take very little time.
BACKLOG_LIMIT = 32


def load(options):
    """Loads the model. Whatever the script raises comes through."""
    model = Model(options.framework, options.model_dir, options.code_dir)
    standby.note_modules(options)
    # Objects of the loaded model will not become garbage; the collector need not look at them again and again.
    gc.collect()
    gc.freeze()
    return model


def failure_text(error):
    """Why the model could not be loaded; the log has it too."""
    if isinstance(error, HostError):
        text = str(error)
    else:
        traceback.print_exception(type(error), error, error.__traceback__)
        text = "The model could not be loaded.\n" + "".join(
            traceback.format_exception(type(error), error, error.__traceback__)
        )
    print("ERROR: " + text.splitlines()[0], file=sys.stderr, flush=True)
    return text


def time_limit(header):
    """The seconds that a request has by its own word, or None."""
    limit = header.get("time_limit_seconds")
    return float(limit) if isinstance(limit, (int, float)) and 0 < limit < 1e9 else None


def greeting(model):
    """The answer to a ping."""
    limit = model.batch_limit()
    return {"status": 200, "batch_limit": limit} if limit > 1 else {"status": 200, "backlog_limit": BACKLOG_LIMIT}


class Drained(Exception):
    """The supervisor asked for the end, and no request is in work."""


class Worker:
    """Serves connections from the listening socket that all workers share, one after another."""

    def __init__(self, options, listener, state, model=None, stands_by=False):
        self._options = options
        self._listener = listener
        self._state = state
        self._model = model
        # Whether the model is loaded only when somebody wants it.
        self._stands_by = stands_by
        self._draining = False
        self._waiting = False

    def run(self):
        """Returns the exit code."""
        # Until there is something to answer, an asked-for end is an end at once.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGCHLD, signal.SIGINT})
        model = self._model
        if model is None:
            if self._stands_by:
                standby.import_ahead(self._options)
                standby.wait_for_client(self._listener)
            try:
                model = load(self._options)
            except BaseException as error:
                self._state.set_failed(failure_text(error))
                return EXIT_LOAD_FAILED
        else:
            preload.in_child()
        self._notes = standby.Notes(self._options)
        self._state.set_idle()
        signal.signal(signal.SIGTERM, self._on_terminate)
        try:
            while True:
                self._serve(model, Connection(self._accept()))
        except Drained:
            return 0

    def _on_terminate(self, _signal, _frame):
        self._draining = True
        if self._waiting:
            raise Drained

    def _wait_for(self, receive):
        """Runs a blocking call that an asked-for end may interrupt."""
        self._waiting = True
        if self._draining:
            raise Drained
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
                    self._state.set_busy(time_limit(header))
                    self._answer(connection, model.invoke(header, body))
                    self._state.set_idle()
                    self._notes.look()
                elif kind == "batch":
                    answer = self._answer_together if model.batch_limit() > 1 else self._answer_in_turn
                    answer(connection, model, split_batch(header, body))
                    self._state.set_idle()
                    self._notes.look()
                elif kind == "ping":
                    connection.send_answer(greeting(model))
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

    def _answer_in_turn(self, connection, model, requests):
        for header, body in requests:
            # Each has the full time limit.
            self._state.set_busy()
            self._answer(connection, model.invoke(header, body))

    def _answer_together(self, connection, model, requests):
        ready = []

        def send_ready():
            sys.stdout.flush()
            connection.send_answers([(answer.header(), answer.body) for answer in ready])
            ready.clear()

        def before_call():
            # Nobody waits for a call that others need, and each call has the full time limit.
            send_ready()
            self._state.set_busy()

        self._state.set_busy()
        for answer in model.invoke_together(requests, before_call):
            if answer.chunks is None:
                ready.append(answer)
            else:
                send_ready()
                self._stream(connection, answer)
        send_ready()

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
