"""Holds one function and runs it for each invocation that the server sends; ends when the server goes.

An invocation that the server wants to be kept goes on without it: that it has begun, and its answer, are files beside the socket.

Frames both ways are a length (four bytes, big-endian) and a JSON document. This file runs on whatever Python the function
asked for, so it keeps to the standard library and to old syntax.
"""

import base64
import importlib
import json
import logging
import os
import resource
import select
import socket
import struct
import sys
import threading
import time
import traceback

TAIL_BYTES = 4096
MOST_ANSWER_BYTES = 6291556
NAME = os.environ.get("AWS_LAMBDA_FUNCTION_NAME", "")
MEMORY_MB = os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "")


class Output(object):
    """A text stream that writes through and remembers the end of what was written."""

    def __init__(self, stream):
        self.stream = stream
        self.encoding = "utf-8"
        self.errors = "replace"
        self.tail = b""

    def write(self, text):
        data = text.encode("utf-8", "replace")
        self.stream.write(data)
        self.stream.flush()
        self.tail = (self.tail + data)[-TAIL_BYTES:]
        return len(text)

    def writelines(self, lines):
        for line in lines:
            self.write(line)

    def flush(self):
        self.stream.flush()

    def fileno(self):
        return self.stream.fileno()

    def isatty(self):
        return False

    def writable(self):
        return True

    def readable(self):
        return False

    @property
    def buffer(self):
        return self.stream


class LogFormatter(logging.Formatter):
    converter = time.gmtime
    request_id = ""

    def format(self, record):
        record.aws_request_id = LogFormatter.request_id
        return super(LogFormatter, self).format(record)


class Identity(object):
    cognito_identity_id = None
    cognito_identity_pool_id = None


class Context(object):
    """What a handler gets beside its event."""

    def __init__(self, call):
        self.aws_request_id = call["request_id"]
        self.invoked_function_arn = call["function_arn"]
        self.function_name = NAME
        self.function_version = os.environ.get("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
        self.memory_limit_in_mb = MEMORY_MB
        self.log_group_name = os.environ.get("AWS_LAMBDA_LOG_GROUP_NAME", "")
        self.log_stream_name = os.environ.get("AWS_LAMBDA_LOG_STREAM_NAME", "")
        self.client_context = call.get("client_context")
        self.identity = Identity()
        self._ends_at = time.time() + call["timeout_seconds"]

    def get_remaining_time_in_millis(self):
        return max(0, int((self._ends_at - time.time()) * 1000))

    def log(self, text):
        sys.stdout.write(str(text))


class Failure(Exception):
    """An error as the runtime tells it."""

    def __init__(self, kind, text, stack=()):
        super(Failure, self).__init__(text)
        self.document = {"errorMessage": text, "errorType": kind, "stackTrace": list(stack)}


def load(handler):
    """The function that the setting `Handler` names."""
    if "." not in handler:
        text = "Bad handler '%s': not enough values to unpack (expected 2, got 1)" % handler
        raise Failure("Runtime.MalformedHandlerName", text)
    module_name, name = handler.rsplit(".", 1)
    try:
        module = importlib.import_module(module_name.replace("/", "."))
    except ImportError as error:
        raise Failure("Runtime.ImportModuleError", "Unable to import module '%s': %s" % (module_name, error))
    except SyntaxError as error:
        stack = ['  File "%s" Line %s\n    %s\n' % (error.filename, error.lineno, (error.text or "").strip())]
        raise Failure("Runtime.UserCodeSyntaxError", "Syntax error in module '%s': %s" % (module_name, error), stack)
    except Exception as error:
        raise Failure(type(error).__name__, str(error), frames(error))
    function = getattr(module, name, None)
    if function is None:
        text = "Handler '%s' missing on module '%s'" % (name, module_name)
        raise Failure("Runtime.HandlerNotFound", text)
    return function


def frames(error):
    """The frames of the function's own code."""
    found = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in found if frame[0] != __file__ and not frame[0].startswith("<frozen importlib")]
    own = [frame for frame in own if os.path.basename(os.path.dirname(frame[0])) != "importlib"]
    return traceback.format_list(own)


def run(function, call):
    """The answer of the handler as JSON text."""
    try:
        event = json.loads(call["payload"])
        answer = function(event, Context(call))
    except Exception as error:
        raise Failure(type(error).__name__, str(error), frames(error))
    try:
        text = json.dumps(answer, ensure_ascii=False)
        text.encode("utf-8")
    except UnicodeError:
        text = json.dumps(answer)
    except Exception as error:
        text = "Unable to marshal response: %s" % error
        raise Failure("Runtime.MarshalError", text)
    length = len(text.encode("utf-8"))
    if length > MOST_ANSWER_BYTES:
        text = "Response payload size (%d bytes) exceeded maximum allowed payload size (%d bytes)." % (
            length,
            MOST_ANSWER_BYTES,
        )
        raise Failure("Function.ResponseSizeTooLarge", text)
    return text


def peak_memory_mb():
    return max(1, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)


def read_exactly(connection, count):
    parts = []
    while count:
        part = connection.recv(min(count, 1 << 20))
        if not part:
            return None
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def read(connection):
    head = read_exactly(connection, 4)
    body = head and read_exactly(connection, struct.unpack(">I", head)[0])
    return json.loads(body.decode("utf-8")) if body else None


def send(connection, document):
    data = json.dumps(document).encode("utf-8")
    connection.sendall(struct.pack(">I", len(data)) + data)


class Kept(object):
    """What stays of the invocation that goes on without the server."""

    def __init__(self, folder):
        self.folder = folder
        self.lock = threading.Lock()
        self.name = None
        self.is_alone = False

    def begin(self, name):
        with self.lock:
            self.name = name
        open(os.path.join(self.folder, "begun-" + name), "w").close()

    def end(self, answer):
        path = os.path.join(self.folder, "answer-" + self.name)
        with open(path + ".partial", "w") as file:
            json.dump(answer, file)
            file.flush()
            os.fsync(file.fileno())
        os.rename(path + ".partial", path)
        with self.lock:
            self.name = None
            if self.is_alone:
                os._exit(0)

    def server_is_gone(self):
        with self.lock:
            self.is_alone = True
            if self.name is None:
                os._exit(1)


def end_with(connection, kept):
    """Ends the process when the server goes, whatever the function is doing, unless that is kept."""
    gone = select.poll()
    gone.register(connection.fileno(), select.POLLRDHUP | select.POLLHUP | select.POLLERR)
    gone.poll()
    kept.server_is_gone()


def main():
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(sys.argv[1])
    # Output of the function must not be able to reach the server's end, nor its children inherit it.
    connection.set_inheritable(False)
    kept = Kept(os.path.dirname(sys.argv[1]))
    watch = threading.Thread(target=end_with, args=(connection, kept))
    watch.daemon = True
    watch.start()
    output = Output(os.fdopen(os.dup(1), "wb", 0))
    sys.stdout = sys.stderr = output
    handler = logging.StreamHandler(output)
    text = "[%(levelname)s]\t%(asctime)s.%(msecs)03dZ\t%(aws_request_id)s\t%(message)s"
    handler.setFormatter(LogFormatter(text, "%Y-%m-%dT%H:%M:%S"))
    logging.getLogger().addHandler(handler)
    sys.path.insert(0, os.environ.get("LAMBDA_TASK_ROOT", "/var/task"))

    started = time.time()
    function, broken = None, None
    try:
        function = load(os.environ.get("_HANDLER", ""))
    except Failure as failure:
        broken = failure
    init_ms = (time.time() - started) * 1000
    send(connection, {"ready": True})

    while True:
        call = read(connection)
        if call is None:
            return
        if call.get("keep"):
            kept.begin(call["keep"])
        output.tail = b""
        request_id = LogFormatter.request_id = call["request_id"]
        sys.stdout.write("START RequestId: %s Version: $LATEST\n" % request_id)
        began = time.time()
        answer = {"ok": True}
        try:
            if broken:
                raise broken
            answer["payload"] = run(function, call)
        except Failure as failure:
            document = dict(failure.document, requestId=request_id)
            if broken:
                document["requestId"] = ""
            lines = "".join(document["stackTrace"])
            sys.stdout.write("[ERROR] %s: %s\nTraceback (most recent call last):\n%s\n" % (
                document["errorType"], document["errorMessage"], lines.rstrip("\n")))
            answer = {"ok": False, "payload": json.dumps(document)}
        elapsed_ms = (time.time() - began) * 1000
        report = "REPORT RequestId: %s\tDuration: %.2f ms\tBilled Duration: %d ms\tMemory Size: %s MB\tMax Memory Used: %d MB" % (
            request_id, elapsed_ms, int(elapsed_ms) + 1, MEMORY_MB, peak_memory_mb())
        if init_ms is not None:
            report += "\tInit Duration: %.2f ms" % init_ms
            init_ms = None
        sys.stdout.write("END RequestId: %s\n%s\n" % (request_id, report))
        answer["last"] = broken is not None
        answer["log"] = base64.b64encode(output.tail).decode("ascii")
        if call.get("keep"):
            kept.end(answer)
        send(connection, answer)
        if broken:
            return


if __name__ == "__main__":
    main()
