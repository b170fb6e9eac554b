"""`convert.py MODEL FOLDER`: makes an ONNX graph of a model of scikit-learn, and says whether both answer the same.

FOLDER gets `outcome.json` and, unless that says why not, `graph.onnx`.
"""
import json
import os
import sys
import warnings

import columns
import comparison
import rows

# Rows on which both are compared.
ROWS = 4096


class Refused(Exception):
    """There is no graph; the text is a clause that says why."""


def main(path, folder):
    warnings.simplefilter("ignore")
    try:
        graph, outcome = convert(path)
    except (Refused, columns.Unclear, comparison.Different) as error:
        graph, outcome = None, {"refused": str(error)}
    if graph is not None:
        with open(os.path.join(folder, "graph.onnx"), "wb") as file:
            file.write(graph)
        outcome["graph_bytes"] = len(graph)
    with open(os.path.join(folder, "outcome.json"), "w") as file:
        json.dump(outcome, file)
    return 0


def convert(path):
    """Returns the bytes of the graph and what there is to say of it."""
    import numpy
    import sklearn

    if sklearn.__file__.startswith(os.path.join(sys.prefix, "")):
        raise Refused("the converter needs another release of scikit-learn than the image has")
    model = load(path)
    kind = type(model).__name__
    if not hasattr(model, "predict") or not hasattr(model, "get_params"):
        raise Refused("it holds a {}, which is no estimator that predicts".format(kind))
    table = columns.describe(model)
    generator = rows.Rows(numpy.random.default_rng(17), model, table)
    sample = generator.plain(ROWS)
    try:
        expected = table.predict(model, sample)
    except Exception as error:
        raise Refused("scikit-learn refuses some of the rows that a graph would answer: {}".format(first_line(error)))
    rules = comparison.rules(model, table, generator)
    samples = [sample]
    if rules["takes_missing"]:
        samples.append(generator.with_missing(ROWS))
    if rules["takes_infinite"]:
        samples.append(generator.with_infinite(256))
    best, problem = None, None
    for is_double in (False, True):
        try:
            graph = to_graph(model, table, is_double)
            found = comparison.compare(graph, model, table, samples, is_double)
        except comparison.Different as error:
            problem = str(error)
            continue
        except Exception as error:
            problem = "it cannot be converted: {}".format(first_line(error))
            continue
        if best is None or found["difference"] < best[1]["difference"]:
            best = (graph, found)
        if best[1]["difference"] == 0:
            break
    if best is None:
        raise Refused(problem)
    graph, found = best
    name = " of ".join(estimator_names(model))
    article = "an" if name[0] in "AEIOU" else "a"
    outcome = {"model": "{} {} of scikit-learn {}".format(article, name, sklearn.__version__)}
    outcome["rows"] = sum(len(one) for one in samples)
    outcome.update(values=answer_values(numpy.asarray(expected)), is_flat=numpy.ndim(expected) == 1)
    outcome.update(rules)
    outcome.update(found)
    return graph, outcome


def load(path):
    """The object of the file, as the model host loads it."""
    try:
        import joblib
    except ImportError:
        import pickle

        with open(path, "rb") as file:
            return pickle.load(file)
    try:
        return joblib.load(path)
    except Exception as error:
        raise Refused("it cannot be loaded: {}".format(first_line(error)))


def to_graph(model, table, is_double):
    """The bytes of the graph."""
    from skl2onnx import convert_sklearn

    take_truth_values()
    types = table.types(is_double)
    options = {id(model): {"zipmap": False}} if hasattr(model, "predict_proba") else None
    try:
        converted = convert_sklearn(model, initial_types=types, options=options)
    except NameError:  # not all classifiers have the option
        converted = convert_sklearn(model, initial_types=types)
    return converted.SerializeToString()


def take_truth_values():
    """Lets graphs have lists of truth values as numbers: the converter writes them so, and newer protobufs refuse them."""
    from onnx import helper

    if not hasattr(helper.make_attribute, "takes_truth_values"):
        helper.make_attribute = with_numbers(helper.make_attribute)


def with_numbers(make_attribute):
    def make(key, value, *more, **options):
        if isinstance(value, list) and any(type(one).__name__ in ("bool", "bool_") for one in value):
            value = [int(one) for one in value]
        return make_attribute(key, value, *more, **options)

    make.takes_truth_values = True
    return make


def answer_values(expected):
    """What the values of an answer are, in the words of the graph's host."""
    values = {"i": "integer", "u": "integer", "f": "number", "b": "truth", "U": "text", "O": "text"}.get(expected.dtype.kind)
    if values is None or (expected.dtype.kind == "O" and not all(isinstance(value, str) for value in expected.ravel())):
        raise Refused("its answers are {}".format(expected.dtype))
    return values


def estimator_names(model):
    """The name of the model, and of what a pipeline ends with."""
    steps = getattr(model, "steps", None)
    return [type(model).__name__] + ([type(steps[-1][1]).__name__] if steps else [])


def first_line(error):
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
