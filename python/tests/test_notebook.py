"""What a notebook job refuses before its notebook runs, and how it gets its place."""

import os
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "launcher"))

import notebook


class Notebook(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.source, self.workplace = Path(folder.name) / "in", Path(folder.name) / "code"
        (self.source / "deep").mkdir(parents=True)
        (self.source / "deep" / "file.txt").write_text("1")
        variables = mock.patch.dict(os.environ, {"SM_EXECUTION_INPUT_PATH": str(self.source)})
        variables.start()
        self.addCleanup(variables.stop)
        self.addCleanup(os.chdir, os.getcwd())
        place = mock.patch.object(notebook, "WORKPLACE", str(self.workplace))
        place.start()
        self.addCleanup(place.stop)

    def test_the_input_is_copied_to_where_the_notebook_runs(self):
        notebook.prepare()
        self.assertEqual(Path.cwd(), self.workplace.resolve())
        self.assertEqual(Path("deep/file.txt").read_text(), "1")

    def test_a_shell_reads_the_initialization_script_first(self):
        (self.source / "init.sh").write_text("export A=1\n")
        os.environ["SM_INIT_SCRIPT"] = "init.sh"
        with mock.patch.object(os, "execvp") as begun:
            notebook.prepare()
        program, words = begun.call_args.args
        self.assertEqual((program, words[3]), ("bash", sys.executable))
        self.assertIn('source "./$SM_INIT_SCRIPT"', words[2])

    def test_what_is_missing_is_named(self):
        os.environ["SM_INIT_SCRIPT"] = "none.sh"
        with self.assertRaisesRegex(notebook.Refusal, "no 'none.sh' beside the notebook"):
            notebook.prepare()
        os.environ["SM_INIT_SCRIPT"] = "../etc/passwd"
        with self.assertRaisesRegex(notebook.Refusal, "without a folder"):
            notebook.prepare()
        os.environ["SM_EXECUTION_INPUT_PATH"] = "/nowhere"
        with self.assertRaisesRegex(notebook.Refusal, "no folder /nowhere"):
            notebook.prepare()
        del os.environ["SM_EXECUTION_INPUT_PATH"]
        with self.assertRaisesRegex(notebook.Refusal, "SM_EXECUTION_INPUT_PATH must be in Environment"):
            notebook.prepare()

    def test_colours_are_taken_out(self):
        self.assertEqual(notebook.plain("\x1b[0;31mError\x1b[0m: x"), "Error: x")


if __name__ == "__main__":
    unittest.main()
