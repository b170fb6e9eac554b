"""A host that stands by: imports ahead, waits, and loads the model when somebody connects."""
import os
import signal
import tempfile
import unittest

from tests import model_folder
from tests.test_host import GREETING, HostProcess

# Tells by a pipe that it is imported, and in which process.
PROBE = """
import os
print("noise of an import")
with open(os.environ["PROBE_PIPE"], "w") as pipe:
    pipe.write("{}\\n".format(os.getpid()))
"""
THREAD = """
import threading
threading.Thread(target=threading.Event().wait, daemon=True).start()
"""
SCRIPT = """
import os, sys
WAS_THERE = "standby_probe" in sys.modules
WAS_WANTED = os.path.exists(os.environ["PROBE_WANTED"])
LOADED_IN = os.getpid()
import standby_probe
print("loaded")
def model_fn(model_dir): return None
def transform_fn(model, body, content_type, accept):
    if body == "exit": os._exit(9)
    return "{} {} {} {}".format(WAS_THERE, WAS_WANTED, LOADED_IN, os.getpid())
"""


class StandbyTest(HostProcess, unittest.TestCase):
    def stand_by(self, *arguments, probe=PROBE, imports="no_such_module\nstandby_probe\nthis is no name\n"):
        root = tempfile.TemporaryDirectory()
        self.addCleanup(root.cleanup)
        pipe, self.wanted = os.path.join(root.name, "pipe"), os.path.join(root.name, "wanted")
        os.mkfifo(pipe)
        # Open on both ends, so that neither writers nor the reader meet an end of it.
        self.pipe = os.fdopen(os.open(pipe, os.O_RDWR))
        self.addCleanup(self.pipe.close)
        with open(os.path.join(root.name, "standby_probe.py"), "w") as file:
            file.write(probe)
        self.variables = {"PROBE_PIPE": pipe, "PROBE_WANTED": self.wanted}
        self.paths = [root.name]
        self.files = {"imports": imports}
        self.start(SCRIPT, "--standby", *arguments)

    def imported_in(self):
        return int(self.pipe.readline())

    def want(self):
        open(self.wanted, "w").close()

    def answer(self, client):
        was_there, was_wanted, loaded_in, process = client.ask("invoke")[1].decode().split()
        self.assertEqual((was_there, was_wanted), ("True", "True"))
        return int(loaded_in), int(process)

    def test_it_imports_ahead_and_loads_when_somebody_connects(self):
        self.stand_by()
        imported_in = self.imported_in()
        self.want()
        client = self.connect()
        self.assertEqual(client.ask("ping"), (GREETING, b""))
        self.assertEqual(self.answer(client), (imported_in, imported_in))
        # The worker in its place has nobody to wait for: it imports and loads as any other.
        self.assertIsNone(client.ask("invoke", b"exit"))
        again = self.imported_in()
        process = int(self.connect().ask("invoke")[1].split()[3])
        self.assertEqual(process, again)
        self.process.terminate()
        log = self.process.stdout.read()
        self.assertEqual((log.count("noise"), log.count("loaded")), (1, 2), log)

    def test_one_that_is_ended_while_it_stands_by_ends_without_loading(self):
        for arguments, code in ((("--workers", "1"), 0), (("--workers", "2"), -signal.SIGTERM)):
            self.stand_by(*arguments)
            self.imported_in()
            self.process.terminate()
            self.assertEqual(self.process.wait(), code)
            self.assertEqual(self.process.stdout.read(), "")

    def test_workers_share_what_was_imported_ahead_and_the_model(self):
        self.stand_by("--workers", "2")
        self.assertEqual(self.imported_in(), self.process.pid)
        self.want()
        answers = [self.answer(client) for client in (self.connect(), self.connect())]
        self.assertEqual({loaded for loaded, _ in answers}, {self.process.pid})
        self.assertEqual(len({process for _, process in answers}), 2)

    def test_where_imports_cannot_be_shared_each_worker_stands_by(self):
        self.stand_by("--workers", "2", probe=PROBE + THREAD)
        # First it is tried in the process of all.
        self.assertEqual(self.imported_in(), self.process.pid)
        workers = {self.imported_in(), self.imported_in()}
        self.want()
        for client in [self.connect(), self.connect()]:
            loaded, process = self.answer(client)
            self.assertEqual(loaded, process)
            workers.remove(process)

    def test_without_a_list_it_waits_all_the_same(self):
        self.stand_by(imports="")
        self.want()
        client = self.connect()
        client.send("ping")
        self.imported_in()
        self.assertEqual(client.receive()[0]["status"], 200)
        self.assertEqual(client.ask("invoke")[1].split()[:2], [b"False", b"True"])


class ModulesTest(HostProcess, unittest.TestCase):
    def modules(self, files, *arguments):
        """The list that a host leaves which has loaded a model of these files, or None."""
        self.start_host("--model-dir", model_folder.make(self, files), *arguments)
        self.client = self.connect()
        self.assertEqual(self.client.ask("ping")[0]["status"], 200)
        try:
            with open(self.folder + "/modules") as file:
                return file.read().split("\n")
        except FileNotFoundError:
            return None

    def test_a_host_leaves_the_names_of_what_did_not_come_with_the_model(self):
        files = {
            "code/inference.py": "import sys\nimport wave, helper\nfrom xml.dom import minidom\ndef model_fn(d): import mailbox\n",
            "code/helper.py": "import os\nprint(os.environ.get('HOME') == '/', os.environ['PATH'] == '/')\n",
        }
        for workers in ("1", "2"):
            modules = self.modules(files, "--workers", workers)
            for name in ("wave", "xml.dom.minidom", "mailbox"):
                self.assertIn(name, modules)
            for name in ("helper", "inference", "model_host", "model_host.worker", "sys", "__main__"):
                self.assertNotIn(name, modules)
            self.assertEqual([name for name in os.listdir(self.folder) if name.startswith("modules.")], [])

    def test_what_requests_import_is_added(self):
        script = """
            def model_fn(model_dir): pass
            def transform_fn(model, body, content_type, accept):
                if body == "wave": import wave
                if body == "helper": import helper
                return body
        """
        self.assertNotIn("wave", self.modules({"code/inference.py": script, "code/helper.py": "import os\nos.environ['A'] = 'b'\n"}))
        client = self.client
        for body in (b"nothing", b"wave"):
            self.assertEqual(client.ask("invoke", body)[1], body)
        # Who is answered next comes after what was left to do for the last.
        client.ask("ping")
        with open(self.folder + "/modules") as file:
            self.assertIn("wave", file.read().split("\n"))
        client.ask("invoke", b"helper")
        client.ask("ping")
        self.assertFalse(os.path.exists(self.folder + "/modules"))

    def test_none_is_left_by_code_that_sets_variables(self):
        for line in ("os.environ['OMP_NUM_THREADS'] = '1'", "os.environ.setdefault('A', 'b')", "os.putenv('A', 'b')"):
            self.assertIsNone(self.modules({"code/inference.py": "import os\n" + line + "\ndef model_fn(d): pass\n"}))
            files = {"code/inference.py": "import helper\ndef model_fn(d): pass\n", "code/helper.py": "import os\n" + line + "\n"}
            self.assertIsNone(self.modules(files))
