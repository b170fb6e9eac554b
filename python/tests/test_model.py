"""Scripts, their calling conventions, and what goes back to the caller."""
import contextlib
import io
import json
import sys
import unittest

from model_host.context import CUSTOM_ATTRIBUTES
from model_host.errors import HostError
from model_host.model import Model
from tests import model_folder


class ModelTest(unittest.TestCase):
    def setUp(self):
        modules, path = set(sys.modules), list(sys.path)

        def restore():
            sys.path[:] = path
            for name in set(sys.modules) - modules:
                del sys.modules[name]

        self.addCleanup(restore)
        self.log = io.StringIO()
        redirection = contextlib.redirect_stderr(self.log)
        redirection.__enter__()
        self.addCleanup(redirection.__exit__, None, None, None)

    def model(self, script=None, framework="python", environment=None, name="code/inference.py", **files):
        files = {file.replace("__", "."): text for file, text in files.items()}
        if script is not None:
            files[name] = script
        return Model(framework, model_folder.make(self, files), environment=environment or {})

    def ask(self, model, body=b"", **header):
        answer = model.invoke(header, body)
        return answer.status, answer.content_type, answer.body


class Conventions(ModelTest):
    FOUR = """
        def model_fn(model_dir): return 10
        def input_fn(body, content_type): return (type(body).__name__, body, content_type)
        def predict_fn(data, model): return [model, *data]
        def output_fn(prediction, accept): return repr((prediction, accept))
    """

    def test_text_types_arrive_as_text_and_all_others_as_bytes(self):
        model = self.model(self.FOUR)
        cases = {
            "application/json": "str", "text/csv": "str", "application/x-npy": "bytes", "text/plain": "bytes",
            "application/json; charset=utf-8": "bytes",
        }
        for content_type, kind in cases.items():
            status, _, body = self.ask(model, b"1", content_type=content_type)
            value = "1" if kind == "str" else b"1"
            expected = repr(([10, kind, value, content_type], "application/json"))
            self.assertEqual((status, body.decode()), (200, expected))

    def test_what_is_left_out_is_json(self):
        status, content_type, body = self.ask(self.model(self.FOUR), b"1")
        self.assertEqual((status, content_type), (200, "application/json"))
        self.assertIn(b"'application/json'], 'application/json')", body)

    def test_rows_may_come_in_an_object(self):
        model = self.model("""
            def model_fn(model_dir): return None
            def predict_fn(data, model): return data
        """)
        for body, seen in (
            (b'{"instances": [[1, 2]]}', [[1, 2]]),
            (b"[[1, 2]]", [[1, 2]]),
        ):
            self.assertEqual(json.loads(self.ask(model, body)[2]), seen)

    def test_the_default_accept_can_be_set(self):
        model = self.model(self.FOUR, environment={"SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT": "text/csv"})
        self.assertEqual(self.ask(model, b"1", accept="*/*")[1], "text/csv")
        self.assertEqual(self.ask(model, b"1", accept="application/x-npy")[1], "application/x-npy")

    def test_functions_may_take_the_context(self):
        model = self.model("""
            def model_fn(model_dir, context): return context.system_properties["model_dir"] == model_dir
            def input_fn(body, content_type, context=None): return context.get_request_header(0, "x-amzn-sagemaker-inference-id")
            def predict_fn(*arguments): return [len(arguments), *arguments]
            def output_fn(prediction, accept, *, context):
                context.set_response_header(0, "X-Amzn-SageMaker-New-Session-Id", "s")
                return str((prediction, sorted(context.get_all_request_header(0)))), "text/x"
        """)
        answer = model.invoke({"kind": "invoke", "inference_id": "i", "custom_attributes": "c"}, b"")
        self.assertEqual(answer.body.decode(), str(([2, "i", True], [CUSTOM_ATTRIBUTES, "X-Amzn-SageMaker-Inference-Id"])))
        self.assertEqual(answer.header(), {"status": 200, "content_type": "text/x", "new_session_id": "s"})
        # Nothing of one request is left for the next.
        self.assertEqual(model.invoke({}, b"").body.decode(), "([2, None, True], [])")

    def test_wrong_numbers_of_parameters_are_named_at_once(self):
        for script in ("def model_fn(): pass", "def model_fn(d): pass\ndef predict_fn(data): pass"):
            with self.assertRaisesRegex(HostError, "_fn takes"):
                self.model(script)

    def test_transform_fn_stands_alone(self):
        model = self.model("""
            def model_fn(model_dir): return "m"
            def transform_fn(model, body, content_type, accept): return model + body + content_type + accept, "text/x"
        """)
        self.assertEqual(self.ask(model, b"b", content_type="text/csv", accept="a/b"), (200, "text/x", b"mbtext/csva/b"))
        with self.assertRaisesRegex(HostError, "keep either"):
            self.model("def transform_fn(a, b, c, d): pass\ndef input_fn(a, b): pass")

    def test_every_kind_of_result_has_bytes(self):
        script = """
            import types
            class Response:
                status_code, mimetype, headers = 201, "text/y", {"X-Amzn-SageMaker-Custom-Attributes": "mine"}
                def get_data(self): return b"web"
            RESULTS = {"str": "\\u00e4", "bytes": b"\\xff", "array": bytearray(b"a"), "view": memoryview(b"v"),
                "dict": {"a": [1]}, "none": None, "pair": ("p", "text/x"), "web": Response()}
            def model_fn(model_dir): return None
            def transform_fn(model, body, content_type, accept): return RESULTS[body]
        """
        model = self.model(script)
        json_type = "application/json"
        expected = {
            "str": (200, json_type, "ä".encode()), "bytes": (200, json_type, b"\xff"), "array": (200, json_type, b"a"),
            "view": (200, json_type, b"v"), "dict": (200, json_type, b'{"a": [1]}'), "none": (200, json_type, b"null"),
            "pair": (200, "text/x", b"p"), "web": (201, "text/y", b"web"),
        }
        for name, answer in expected.items():
            self.assertEqual(self.ask(model, name.encode()), answer)
        self.assertEqual(model.invoke({}, b"web").header()["custom_attributes"], "mine")

    def test_generators_are_streamed(self):
        model = self.model("""
            def model_fn(model_dir): return None
            def input_fn(body, content_type): return int(body)
            def predict_fn(data, model): return ({"n": n} for n in range(data))
        """)
        answer = model.invoke({"accept": "*/*"}, b"2")
        self.assertEqual(list(answer.chunks), ['{"n": 0}\n', '{"n": 1}\n'])

    def test_preparation_and_warmup_functions_are_called(self):
        model = self.model("""
            calls = []
            def pre_model_fn(model_dir): calls.append("pre")
            def model_fn(model_dir): calls.append("model"); return calls
            def model_warmup_fn(model_dir, model): calls.append("warm")
            def transform_fn(model, body, content_type, accept): return calls
        """)
        self.assertEqual(self.ask(model)[2], b'["pre", "model", "warm"]')


class Errors(ModelTest):
    def test_exceptions_are_500_with_their_traceback(self):
        model = self.model("def model_fn(d): pass\ndef transform_fn(m, b, c, a): return 1 / 0\n")
        status, content_type, body = self.ask(model)
        body = json.loads(body)
        self.assertEqual((status, content_type, body["code"]), (500, "application/json", 500))
        self.assertEqual((body["type"], body["message"]), ("InternalServerException", "division by zero"))
        self.assertIn("in transform_fn", body["traceback"])
        self.assertIn("ZeroDivisionError", self.log.getvalue())

    def test_unsupported_types_are_415_and_406(self):
        model = self.model("def model_fn(d): pass\ndef predict_fn(data, model): return [1]\n")
        self.assertEqual(self.ask(model, b"x", content_type="image/png")[0], 415)
        self.assertEqual(self.ask(model, b"[1]", accept="image/png")[0], 406)
        self.assertEqual(self.ask(model, b"[1]", accept="image/png, text/csv;q=0.5")[::2], (200, b"1\n"))

    def test_scripts_choose_statuses_by_the_toolkits_errors(self):
        model = self.model("""
            from sagemaker_inference import content_types, decoder, encoder, errors
            def model_fn(d): pass
            def transform_fn(model, body, content_type, accept):
                assert content_types.JSON == "application/json"
                raise errors.BaseInferenceToolkitError(422, "no such row", "phrase")
        """)
        status, _, body = self.ask(model)
        self.assertEqual((status, json.loads(body)["message"]), (422, "no such row"))

    def test_text_that_is_no_utf8_is_an_error(self):
        model = self.model("def model_fn(d): pass\ndef predict_fn(data, model): return [1]\n")
        self.assertEqual(self.ask(model, b"\xff", content_type="application/json")[0], 500)


class Scripts(ModelTest):
    SCRIPT = "import neighbour\ndef model_fn(d): return neighbour.NAME\ndef transform_fn(m, b, c, a): return m\n"

    def test_the_program_is_looked_for_in_the_submit_directory(self):
        model_dir = model_folder.make(self, {"src/deep/serve.py": self.SCRIPT, "src/deep/neighbour.py": "NAME = 'n'"})
        for program, folder in (("deep/serve.py", "/src"), ("serve", "/src/deep"), ("serve.py", "/src/deep")):
            environment = {"SAGEMAKER_PROGRAM": program, "SAGEMAKER_SUBMIT_DIRECTORY": model_dir + folder}
            self.assertEqual(Model("python", model_dir, environment=environment).invoke({}, b"").body, b"n")
        environment = {"SAGEMAKER_PROGRAM": "deep/serve.py", "SAGEMAKER_SUBMIT_DIRECTORY": "s3://bucket/code.tar.gz"}
        model = Model("python", model_dir, code_dir=model_dir + "/src", environment=environment)
        self.assertEqual(model.invoke({}, b"").body, b"n")

    def test_a_program_that_is_missing_is_an_error(self):
        with self.assertRaisesRegex(HostError, r"serve\.py \(SAGEMAKER_PROGRAM\) was not found in .*/model/code"):
            self.model("x = 1", environment={"SAGEMAKER_PROGRAM": "serve.py"})

    def test_a_script_may_be_called_like_a_module_in_use(self):
        model = self.model(
            "def model_fn(d): pass\ndef transform_fn(m, b, c, a): return 'mine'\n",
            name="code/json.py", environment={"SAGEMAKER_PROGRAM": "json.py"},
        )
        self.assertEqual(self.ask(model)[2], b"mine")
        self.assertIs(sys.modules["json"], json)

    def test_scripts_for_the_older_toolkit_find_its_names(self):
        model = self.model("""
            from sagemaker_containers.beta.framework import content_types, encoders, worker
            def model_fn(d): return 3
            def input_fn(body, content_type): return encoders.decode(body, content_type)
            def predict_fn(data, model): return [model]
            def output_fn(prediction, accept):
                return worker.Response(encoders.encode(prediction, accept), mimetype=accept)
        """)
        self.assertEqual(self.ask(model, b"[1]"), (200, "application/json", b"[3]"))

    def test_a_script_without_a_model_fn_is_told_so(self):
        for framework in ("python", "scikit-learn", "pytorch", "xgboost"):
            with self.assertRaisesRegex(HostError, "has no model_fn, and th.*add a model_fn"):
                self.model("def predict_fn(data, model): pass", framework)


class WithoutScript(ModelTest):
    def test_the_model_describes_itself_whatever_the_framework(self):
        for framework in ("python", "pytorch", "scikit-learn", "tensorflow"):
            model = self.model(None, framework, model__json='{"w": [1]}')
            status, content_type, body = self.ask(model, b'{"x": 1}', content_type="application/json")
            self.assertEqual((status, content_type), (200, "application/json"))
            body = json.loads(body)
            self.assertEqual(body["model"], {"files": ["model.json"], "model.json": {"w": [1]}})
            self.assertEqual(body["input"], {"x": 1})
            self.assertIn("no inference script", body["note"])
        self.assertIn("WARNING: This model has no inference script", self.log.getvalue())

    def test_any_input_is_described(self):
        model = self.model(None, README="hello")
        for content_type, body, expected in (
            ("text/csv", b"1,2", "1,2"),
            ("application/x-npy", b"\x93", {"content_type": "application/x-npy", "bytes": 1}),
        ):
            self.assertEqual(json.loads(self.ask(model, body, content_type=content_type)[2])["input"], expected)
        self.assertIn("problem", json.loads(self.ask(model, b"{", content_type="application/json")[2])["input"])

    def test_a_scikit_learn_file_is_loaded(self):
        import pickle

        model = self.model(None, "scikit-learn", **{"model__pkl": pickle.dumps(Sums())})
        # This environment may have no joblib and no numpy; the pickle and plain lists do.
        self.assertEqual(self.ask(model, b"1,2\n3,4\n", content_type="text/csv")[::2], (200, b"[3.0, 7.0]"))

    def test_two_pytorch_files_are_a_mistake(self):
        with self.assertRaisesRegex(HostError, "Exactly one"):
            self.model(None, "pytorch", a__pt=b"", b__pth=b"")


class Sums:
    """A model that pickle finds by its module."""

    def predict(self, rows):
        return [float(sum(row)) for row in rows]
