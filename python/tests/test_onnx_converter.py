"""What the converter finds out about a model before any library is needed."""
import os
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "onnx_converter"))

import columns  # noqa: E402

try:
    import convert  # noqa: E402
except ImportError:
    convert = None  # there is no numpy


class Values(list):
    """Stands for an array: values with a kind of element."""

    def __init__(self, kind, values):
        super().__init__(values)
        self.dtype = type("dtype", (), {"kind": kind})


class Fitted:
    """Stands for a fitted estimator."""

    def __init__(self, **attributes):
        self.__dict__.update(attributes)


class SimpleImputer(Fitted):
    pass


class ColumnsTest(unittest.TestCase):
    names = ["age", "size", "color"]

    def test_columns_are_chosen_in_every_way(self):
        for chosen, numbers in [
            (["color", "age"], [2, 0]),
            ("size", [1]),
            ([0, -1], [0, 2]),
            (1, [1]),
            ([True, False, True], [0, 2]),
            (slice(1, None), [1, 2]),
            (slice("age", "size"), [0, 1]),
        ]:
            self.assertEqual(columns._numbers(chosen, self.names), numbers)

    def test_texts_are_found_where_an_encoder_sees_them(self):
        encoder = Fitted(categories_=[Values("O", ["red", "blue"])], n_features_in_=1)
        imputer = SimpleImputer(statistics_=["red"])
        pipeline = Fitted(steps=[("imputer", imputer), ("encoder", encoder)])
        table = Fitted(transformers_=[("colors", pipeline, [2]), ("rest", "passthrough", [0, 1])])
        model = Fitted(n_features_in_=3, steps=[("table", table), ("regression", Fitted())])
        found = columns.describe(model)
        self.assertEqual(found.categories, [None, None, ["red", "blue"]])
        self.assertEqual((found.names, found.is_named, found.is_split), (["x0", "x1", "x2"], False, True))

    def test_numbers_need_no_names(self):
        found = columns.describe(Fitted(n_features_in_=2, feature_names_in_=["a", "b"]))
        self.assertEqual((found.names, found.is_named, found.is_split, found.has_texts), (["a", "b"], False, False, False))
        encoder = Fitted(categories_=[Values("f", [1.0, 2.0])], n_features_in_=1)
        self.assertEqual(columns.describe(encoder).categories, [None])

    def test_a_model_that_does_not_say_what_it_takes_is_unclear(self):
        with self.assertRaises(columns.Unclear):
            columns.describe(Fitted())


@unittest.skipIf(convert is None, "needs numpy")
class AttributesTest(unittest.TestCase):
    def test_lists_of_truth_values_become_numbers(self):
        made = convert.with_numbers(lambda name, value: (name, value))
        self.assertEqual(made("tracks", [True, False]), ("tracks", [1, 0]))
        self.assertEqual(made("modes", ["LEAF"]), ("modes", ["LEAF"]))
        self.assertEqual(made("flag", True), ("flag", True))


if __name__ == "__main__":
    unittest.main()
