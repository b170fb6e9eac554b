"""The host as a process: start, restart, end."""
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import unittest

from tests import model_folder

SCRIPT = """
    import os
    def model_fn(model_dir): return None
    def transform_fn(model, body, content_type, accept):
        if body == "exit": os._exit(9)
        if body.startswith("await:"):
            with open(body[6:]) as fifo: return fifo.read()
        print("asked", body)
        return str(os.getpid())
"""


class Client:
    def __init__(self, path):
        self.stream = socket.socket(socket.AF_UNIX)
        try:
            self.stream.connect(path)
        except OSError:
            self.stream.close()
            raise

    def send(self, kind, body=b"", **header):
        header = json.dumps({"kind": kind, **header}).encode()
        self.stream.sendall(struct.pack(">IQ", len(header), len(body)) + header + body)

    def receive(self):
        """Returns (header, body), or None if the host closed the connection."""
        return self.receive_all(1)[0]

    def receive_all(self, count):
        """As many answers, after which nothing may follow."""
        with self.stream.makefile("rb") as file:
            return [self.receive_from(file) for _ in range(count)]

    @staticmethod
    def receive_from(file):
        prefix = file.read(12)
        if not prefix:
            return None
        header_bytes, body_bytes = struct.unpack(">IQ", prefix)
        return json.loads(file.read(header_bytes)), file.read(body_bytes)

    def ask(self, kind, body=b"", **header):
        self.send(kind, body, **header)
        return self.receive()


# What a worker says that answers requests one by one.
GREETING = {"status": 200, "backlog_limit": 32}


class HostProcess:
    """Starts hosts for tests and connects to them."""

    # What a test adds: variables, folders of modules, and files beside the socket.
    variables = {}
    paths = []
    files = {}

    def start(self, script, *arguments):
        self.start_host("--model-dir", model_folder.make(self, {"code/inference.py": script}), *arguments)

    def start_host(self, *arguments):
        root = tempfile.TemporaryDirectory()
        self.addCleanup(root.cleanup)
        # A path longer than the name of a socket may be.
        folder = os.path.join(root.name, "f" * 100)
        os.mkdir(folder)
        self.folder = folder
        for name, text in self.files.items():
            with open(os.path.join(folder, name), "w") as file:
                file.write(text)
        paths = [os.path.dirname(os.path.dirname(os.path.abspath(__file__)))] + self.paths
        process = subprocess.Popen(
            [sys.executable, "-m", "model_host", "--socket", folder + "/host.sock", *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=dict(os.environ, PYTHONPATH=os.pathsep.join(paths), **self.variables),
        )
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.process = process

    def connect(self):
        handle = os.open(self.folder, os.O_DIRECTORY)
        self.addCleanup(os.close, handle)
        while True:
            try:
                client = Client("/proc/self/fd/{}/host.sock".format(handle))
            except OSError:
                if self.process.poll() is not None:
                    self.fail("the host ended: " + self.process.stdout.read())
                continue
            self.addCleanup(client.stream.close)
            return client


class HostTest(HostProcess, unittest.TestCase):
    def test_each_connection_has_a_worker_of_its_own(self):
        self.start(SCRIPT, "--workers", "2")
        first, second = self.connect(), self.connect()
        self.assertEqual(first.ask("ping"), (GREETING, b""))
        self.assertEqual(second.ask("ping"), (GREETING, b""))
        self.assertNotEqual(first.ask("invoke")[1], second.ask("invoke")[1])
        # A closed connection makes its worker free for a new one.
        process = first.ask("invoke")[1]
        first.stream.close()
        self.assertEqual(self.connect().ask("invoke")[1], process)

    def test_workers_share_a_model_that_was_loaded_once(self):
        script = """
            import os, random
            print("loading")
            def model_fn(model_dir): return os.getpid()
            def transform_fn(model, body, content_type, accept):
                if body == "exit": os._exit(9)
                return "{} {} {}".format(model, os.getpid(), random.random())
        """
        self.start(script, "--workers", "2")
        first, second = self.connect(), self.connect()
        answers = [client.ask("invoke")[1].split() for client in (first, second)]
        self.assertEqual(len({loaded for loaded, _, _ in answers}), 1)
        self.assertEqual(int(answers[0][0]), self.process.pid)
        self.assertEqual(len({process for _, process, _ in answers}), 2)
        self.assertEqual(len({number for _, _, number in answers}), 2, "workers draw the same random numbers")
        # The one in its place has the same model, and did not wait for it.
        self.assertIsNone(first.ask("invoke", b"exit"))
        loaded, process, _ = self.connect().ask("invoke")[1].split()
        self.assertEqual(int(loaded), self.process.pid)
        self.assertNotIn(process, [process for _, process, _ in answers])
        self.process.terminate()
        self.assertEqual(self.process.stdout.read().count("loading"), 1)

    def test_a_model_that_cannot_be_shared_is_loaded_by_each_worker(self):
        threads = "import threading\n    thread = threading.Thread(target=threading.Event().wait, daemon=True)\n    thread.start()"
        for keeps in (threads, "global kept\n    kept = open(__file__)", "import socket\n    global kept\n    kept = socket.socket()"):
            script = (
                "import os\ndef model_fn(model_dir):\n    " + keeps + "\n    return os.getpid()\n"
                "def transform_fn(model, body, content_type, accept): return '{} {}'.format(model, os.getpid())\n"
            )
            self.start(script, "--workers", "2")
            clients = []
            while len(clients) < 2:
                # The host that finds it out closes the connections it has, and starts anew.
                client = self.connect()
                try:
                    if client.ask("ping") == (GREETING, b""):
                        clients.append(client)
                except OSError:
                    pass
            for client in clients:
                loaded, process = client.ask("invoke")[1].split()
                self.assertEqual(loaded, process, keeps)

    def test_a_shared_model_that_does_not_load_says_why(self):
        self.start("def model_fn(model_dir): raise KeyError('weights')\n", "--workers", "2")
        header, _ = self.connect().ask("ping")
        self.assertEqual(header["status"], 503)
        self.assertIn("KeyError: 'weights'", header["error"])
        self.assertEqual(self.process.wait(), 1)

    def test_a_backlog_is_answered_in_turn(self):
        self.start("""
import os
def model_fn(model_dir): return None
def transform_fn(model, body, content_type, accept):
    if body == "exit": os._exit(1)
    if body == "raise": raise ValueError("bad row")
    return body * 2
""")
        client = self.connect()
        self.assertEqual(client.ask("ping"), (GREETING, b""))

        def send(*bodies):
            headers = [{"kind": "invoke", "content_type": "text/csv"} for _ in bodies]
            client.send("batch", "".join(bodies).encode(), requests=headers, body_bytes=[len(body) for body in bodies])

        send("1", "raise", "", "4")
        answers = client.receive_all(4)
        self.assertEqual([header["status"] for header, _ in answers], [200, 500, 200, 200])
        self.assertEqual([answers[at][1] for at in (0, 2, 3)], [b"11", b"", b"44"])
        self.assertIn(b"bad row", answers[1][1])
        # What was answered before a worker ends has been sent.
        send("1", "exit", "3")
        first, nothing = client.receive_all(2)
        self.assertEqual((first[1], nothing), (b"11", None))

    def test_a_dead_worker_is_replaced(self):
        self.start(SCRIPT)
        first = self.connect()
        before = first.ask("invoke")[1]
        self.assertIsNone(first.ask("invoke", b"exit"))
        self.assertNotEqual(self.connect().ask("invoke")[1], before)

    def test_a_default_time_limit_of_the_script_does_not_close_idle_connections(self):
        self.start("import socket\nsocket.setdefaulttimeout(0.001)\ndef model_fn(d): pass\n"
                   "def transform_fn(m, b, c, a): return repr(socket.getdefaulttimeout())\n")
        client, other = self.connect(), self.connect()
        client.ask("ping")
        # Nobody answers the second connection; the wait for it is longer than the script's limit.
        other.stream.settimeout(0.05)
        other.send("ping")
        with self.assertRaises(OSError):
            other.receive()
        self.assertEqual(client.ask("invoke")[1], b"0.001")

    def test_nonsense_closes_the_connection_only(self):
        self.start(SCRIPT)
        first = self.connect()
        before = first.ask("invoke")[1]
        self.assertIsNone(first.ask("nonsense"))
        self.assertEqual(self.connect().ask("invoke")[1], before)

    def test_a_request_in_work_is_answered_before_the_end(self):
        self.start(SCRIPT, "--workers", "2")
        idle, busy = self.connect(), self.connect()
        idle.ask("ping")
        busy.ask("ping")
        fifo = os.path.join(self.folder, "fifo")
        os.mkfifo(fifo)
        busy.send("invoke", b"await:" + fifo.encode())
        with open(fifo, "w") as gate:
            self.process.send_signal(signal.SIGTERM)
            self.assertIsNone(idle.receive())
            gate.write("answered")
        self.assertEqual(busy.receive()[1], b"answered")
        self.assertEqual(self.process.wait(), 0)

    def test_prints_reach_the_log_before_the_answer_goes(self):
        self.start(SCRIPT)
        client = self.connect()
        client.ask("invoke", b"aloud")
        self.assertEqual(self.process.stdout.readline(), "asked aloud\n")

    def test_a_hanging_worker_is_ended(self):
        self.start(SCRIPT, "--model-timeout-seconds", "0.1")
        client = self.connect()
        before = client.ask("invoke")[1]
        fifo = os.path.join(self.folder, "fifo")
        os.mkfifo(fifo)
        self.assertIsNone(client.ask("invoke", b"await:" + fifo.encode()))
        self.assertNotEqual(self.connect().ask("invoke")[1], before)

    def test_a_request_may_have_a_time_limit_of_its_own(self):
        self.start(SCRIPT, "--model-timeout-seconds", "3600")
        client = self.connect()
        before = client.ask("invoke")[1]
        fifo = os.path.join(self.folder, "fifo")
        os.mkfifo(fifo)
        self.assertIsNone(client.ask("invoke", b"await:" + fifo.encode(), time_limit_seconds=0.1))
        self.assertNotEqual(self.connect().ask("invoke")[1], before)

    def test_a_model_that_does_not_load_is_told_to_whoever_asks(self):
        # The script waits until the test is connected.
        root = tempfile.TemporaryDirectory()
        self.addCleanup(root.cleanup)
        fifo = os.path.join(root.name, "fifo")
        os.mkfifo(fifo)
        self.start("open({!r}).read()\nraise RuntimeError('no weights')\n".format(fifo))
        client = self.connect()
        client.send("ping")
        with open(fifo, "w"):
            pass
        header, _ = client.receive()
        self.assertEqual(header["status"], 503)
        self.assertIn("RuntimeError: no weights", header["error"])
        self.assertEqual(self.process.wait(), 1)
        self.assertIn("RuntimeError: no weights", self.process.stdout.read())

    def test_a_mistaken_set_up_is_one_clear_line(self):
        self.start("def model_fn(): pass\n")
        self.assertEqual(self.process.wait(), 1)
        log = self.process.stdout.read()
        self.assertTrue(log.startswith("ERROR: model_fn takes 0 arguments, but it is called with 1"), log)
        self.assertNotIn("Traceback", log)
