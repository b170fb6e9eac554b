"""A host whose workers have many models."""
import os
import unittest

from tests import model_folder
from tests.test_host import HostProcess

SCRIPT = """
    import os
    import helper

    def model_fn(model_dir): return helper.NAME
    def transform_fn(model, body, content_type, accept):
        if body == "exit": os._exit(9)
        return "{} {}".format(model, body)
"""


class ManyModelsTest(HostProcess, unittest.TestCase):
    def host(self):
        """Starts a host of one worker; returns its connections by their roles."""
        self.start_host("--models-dir", "/nowhere")
        found = {}
        for client in (self.connect(), self.connect()):
            header, _ = client.ask("ping")
            self.assertEqual(header["status"], 200)
            found[header["role"]] = (client, header["worker"])
        (invoke, one), (load, other) = found["invoke"], found["load"]
        self.assertEqual(one, other)
        return invoke, load

    def folder_of(self, name, script=SCRIPT):
        return model_folder.make(self, {"code/inference.py": script, "code/helper.py": "NAME = {!r}".format(name)})

    def test_models_with_modules_of_the_same_names_are_kept_apart(self):
        invoke, load = self.host()
        for name in ("one", "two"):
            header, _ = load.ask("load", model=name, model_dir=self.folder_of(name))
            self.assertEqual(header["status"], 200, header)
            self.assertGreaterEqual(header["memory_bytes"], 0)
        for name in ("one", "two", "one"):
            self.assertEqual(invoke.ask("invoke", b"x", model=name, content_type="text/csv")[1], name.encode() + b" x")
        self.assertEqual(load.ask("unload", model="one")[0]["status"], 200)
        header, _ = invoke.ask("invoke", b"x", model="one", content_type="text/csv")
        self.assertEqual((header["status"], header["error"]), (404, "the model is not loaded"))
        # A server that knows none of them makes a fresh start.
        load.ask("load", model="three", model_dir=self.folder_of("three"), forgets=True)
        self.assertEqual(invoke.ask("invoke", b"x", model="two", content_type="text/csv")[0]["status"], 404)
        self.assertEqual(invoke.ask("invoke", b"x", model="three", content_type="text/csv")[1], b"three x")

    def test_a_model_that_cannot_be_loaded_leaves_the_others(self):
        invoke, load = self.host()
        load.ask("load", model="good", model_dir=self.folder_of("good"))
        for script, says in (("raise ValueError('no weights')", "no weights"), ("raise SystemExit(4)", "SystemExit")):
            header, _ = load.ask("load", model="bad", model_dir=self.folder_of("bad", script))
            self.assertEqual(header["status"], 500)
            self.assertIn(says, header["error"])
        self.assertEqual(invoke.ask("invoke", b"x", model="good", content_type="text/csv")[1], b"good x")

    def test_a_model_whose_requirements_are_not_met_says_which(self):
        invoke, load = self.host()
        met = "# what is there\npip  # by any version\npip>=1 ; python_version >= '3'\nabsent==1; python_version < '3'\n--no-index\n"
        folder = model_folder.make(self, {"code/inference.py": SCRIPT_PLAIN, "code/requirements.txt": met})
        header, _ = load.ask("load", model="met", model_dir=folder)
        self.assertEqual(header["status"], 200, header)
        self.assertEqual(invoke.ask("invoke", b"x", model="met", content_type="text/csv")[1], b"slow x")
        for line in ("absent-package", "pip>=1,<2", "pip @ https://localhost/pip.whl", "./wheels/one.whl", "-r more.txt"):
            folder = model_folder.make(self, {"code/inference.py": SCRIPT_PLAIN, "code/requirements.txt": met + line})
            header, _ = load.ask("load", model="unmet", model_dir=folder)
            self.assertEqual(header["status"], 500, line)
            self.assertIn("code/requirements.txt asks for {}, ".format(line), header["error"])
            self.assertNotIn("Traceback", header["error"])
        self.assertEqual(invoke.ask("invoke", b"x", model="met", content_type="text/csv")[1], b"slow x")

    def test_requests_are_answered_while_a_model_is_loaded(self):
        invoke, load = self.host()
        load.ask("load", model="good", model_dir=self.folder_of("good"))
        fifo = os.path.join(self.folder, "fifo")
        os.mkfifo(fifo)
        load.send("load", model="slow", model_dir=self.folder_of("slow", "open({!r}).read()\n".format(fifo) + SCRIPT_PLAIN))
        for _ in range(10):
            self.assertEqual(invoke.ask("invoke", b"x", model="good", content_type="text/csv")[1], b"good x")
        with open(fifo, "w"):
            pass
        self.assertEqual(load.receive()[0]["status"], 200)
        self.assertEqual(invoke.ask("invoke", b"x", model="slow", content_type="text/csv")[1], b"slow x")

    def test_an_asked_for_end_ends_a_host_that_waits(self):
        self.host()
        self.process.terminate()
        self.assertEqual(self.process.wait(), 0)


SCRIPT_PLAIN = """
def model_fn(model_dir): return "slow"
def transform_fn(model, body, content_type, accept): return "{} {}".format(model, body)
"""
