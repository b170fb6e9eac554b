"""Several requests in one call of predict: each has the answer that it would have had alone."""
import contextlib
import io
import json
import os
import random
import sys
import unittest
import unittest.mock

from model_host.errors import HostError
from model_host.frames import ProtocolError, split_batch
from model_host.model import Model
from tests import model_folder
from tests.test_host import HostProcess

SCRIPT = """
    import json
    calls = []
    def model_fn(model_dir): return 3
    def input_fn(body, content_type): return json.loads(body)
    def predict_fn(rows, model):
        calls.append(len(rows))
        if any(row[0] == "bad" for row in rows): raise ValueError("bad row")
        return [[cell * model for cell in row] for row in rows]
    def output_fn(prediction, accept, context):
        if prediction == [[0]]: raise RuntimeError("nothing to say")
        context.set_response_header(0, "X-Amzn-SageMaker-Custom-Attributes", context.get_request_id())
        return json.dumps(prediction), accept
"""
ROWS = {"MODEL_HOST_BATCH": "rows"}


class JoiningTest(unittest.TestCase):
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

    def model(self, script, environment, framework="python"):
        return Model(framework, model_folder.make(self, {"code/inference.py": script}), environment=environment)

    def together(self, model, bodies):
        requests = [
            ({"request_id": "r{}".format(number), "accept": "x/{}".format(number)}, memoryview(body.encode()))
            for number, body in enumerate(bodies)
        ]
        calls = []
        answers = list(model.invoke_together(requests, lambda: calls.append(1)))
        self.assertEqual(len(answers), len(bodies))
        alone = [model.invoke(header, body) for header, body in requests]
        for one, other in zip(answers, alone):
            same = [(each.status, each.content_type, bytes(each.body), each.fields) for each in (one, other)]
            self.assertEqual(*same)
        return answers, len(calls)

    def test_rows_of_one_width_are_joined(self):
        model = self.model(SCRIPT, ROWS)
        answers, calls = self.together(model, ["[[1], [2]]", "[[3, 4]]", "[[5]]", "[[6, 7], [8, 9]]", "[[10, 11, 12]]"])
        self.assertEqual(json.loads(answers[3].body), [[18, 21], [24, 27]])
        self.assertEqual((answers[2].content_type, answers[2].fields["custom_attributes"]), ("x/2", "r2"))
        # Two tables of two widths, and the one that is alone with its width.
        self.assertEqual(calls, 3)
        self.assertEqual(sys.modules["inference"].calls[:3], [3, 3, 1])

    def test_who_fails_fails_alone(self):
        model = self.model(SCRIPT, ROWS)
        answers, _ = self.together(model, ["[[1]]", '[["bad"]]', "no JSON", "[[2]]", "[]", "7"])
        self.assertEqual([answer.status for answer in answers], [200, 500, 500, 200, 200, 500])
        answers, calls = self.together(model, ["[[0]]", "[[4]]"])
        self.assertEqual([answer.status for answer in answers], [500, 200])
        self.assertEqual(calls, 2)

    def test_any_mixture_gives_the_same_answers(self):
        chance = random.Random(7)
        model = self.model(SCRIPT, ROWS)
        for _ in range(200):
            bodies = []
            for _ in range(chance.randint(2, 12)):
                width = chance.randint(1, 3)
                table = [[chance.choice(["bad", *range(20)]) if chance.random() < 0.05 else chance.randint(0, 9)
                          for _ in range(width)] for _ in range(chance.randint(0, 4))]
                bodies.append(json.dumps(table))
            self.together(model, bodies)

    def test_predictions_that_are_not_one_for_each_row_end_it(self):
        script = SCRIPT.replace("return [[cell * model for cell in row] for row in rows]", "return {'rows': len(rows)}")
        model = self.model(script, ROWS)
        self.assertEqual(model.batch_limit(), 1024)
        answers, _ = self.together(model, ["[[1]]", "[[2]]"])
        self.assertEqual([json.loads(answer.body) for answer in answers], [{"rows": 1}, {"rows": 1}])
        self.assertEqual(model.batch_limit(), 1)
        self.assertIn("no list or array with an element for each row", self.log.getvalue())

    def test_only_a_script_that_says_so_is_joined(self):
        self.assertEqual(self.model(SCRIPT, {}).batch_limit(), 1)
        self.assertEqual(self.model(SCRIPT, {"MODEL_HOST_BATCH": "off"}).batch_limit(), 1)
        self.assertEqual(self.model(SCRIPT, dict(ROWS, MODEL_HOST_BATCH_LIMIT="8")).batch_limit(), 8)
        self.assertEqual(self.model(SCRIPT, dict(ROWS, MODEL_HOST_BATCH_LIMIT="1")).batch_limit(), 1)
        transform = "def transform_fn(model, body, content_type, accept): return body\ndef model_fn(model_dir): return 1\n"
        context = SCRIPT.replace("predict_fn(rows, model)", "predict_fn(rows, model, context)")
        for script, environment, words in (
            (SCRIPT, {"MODEL_HOST_BATCH": "yes"}, "MODEL_HOST_BATCH must be rows, off or auto"),
            (SCRIPT, {"MODEL_HOST_BATCH_LIMIT": "0"}, "MODEL_HOST_BATCH_LIMIT must be a number from 1 to 1024"),
            (transform, ROWS, "has transform_fn"),
            (context, ROWS, "without context"),
        ):
            with self.assertRaisesRegex(HostError, words):
                self.model(script, environment)


class Batches(unittest.TestCase):
    def test_a_batch_that_contradicts_itself_is_refused(self):
        headers = [{"accept": "a"}, {}]
        pairs = split_batch({"requests": headers, "body_bytes": [1, 2]}, b"abc")
        self.assertEqual(pairs, [({"accept": "a"}, b"a"), ({}, b"bc")])
        for header in ({}, {"requests": headers}, {"requests": headers, "body_bytes": [3]},
                       {"requests": headers, "body_bytes": [1, 1]}, {"requests": headers, "body_bytes": [4, -1]},
                       {"requests": [1, 2], "body_bytes": [1, 2]}, {"requests": headers, "body_bytes": [1, 3]}):
            with self.assertRaises(ProtocolError):
                split_batch(header, b"abc")


class BatchingHost(HostProcess, unittest.TestCase):
    def test_a_worker_says_what_it_takes_and_answers_in_order(self):
        with unittest.mock.patch.dict(os.environ, ROWS):
            self.start(SCRIPT)
        client = self.connect()
        self.assertEqual(client.ask("ping")[0], {"status": 200, "batch_limit": 1024})
        bodies = [b"[[1]]", b'[["bad"]]', b"[[2]]"]
        client.send("batch", b"".join(bodies), requests=[{}, {}, {}], body_bytes=[len(body) for body in bodies])
        answers = client.receive_all(3)
        self.assertEqual([header["status"] for header, _ in answers], [200, 500, 200])
        self.assertEqual(json.loads(answers[2][1]), [[6]])
        self.assertEqual(json.loads(client.ask("invoke", b"[[3]]")[1]), [[9]])
