"""Whether a graph answers as its model does."""
import numpy

# How far numbers may lie apart, relative to their size and to how they spread.
RELATIVE = 1e-5
# Rows that are also asked for one by one: the runtime has other ways for them.
SINGLE_ROWS = 8


class Different(Exception):
    """The graph answers otherwise; the text is a clause that says how."""


def rules(model, table, generator):
    """What values the model takes."""
    takes_missing = [_answers(model, table, generator, at, numpy.nan) for at in generator.numbers()]
    if any(takes_missing) and not all(takes_missing):
        raise Different("it takes missing values in some of its columns only")
    takes_infinite = [_answers(model, table, generator, at, numpy.inf) for at in generator.numbers()]
    if any(takes_infinite) and not all(takes_infinite):
        raise Different("it takes infinite values in some of its columns only")
    # Numbers of categories, of which an encoder may refuse those that it has not seen, are among the plain rows.
    return {
        "takes_missing": bool(takes_missing) and all(takes_missing),
        "takes_infinite": bool(takes_infinite) and all(takes_infinite),
    }


def _answers(model, table, generator, at, value):
    sample = generator.plain(4)
    sample[:, at] = value
    try:
        table.predict(model, sample)
    except Exception:
        return False
    return True


def compare(graph, model, table, samples, is_double):
    """What the host of the graph has to know of it; raises Different."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    found = {"single_precision": is_double, "difference": 0.0}
    for sample in samples:
        expected = numpy.asarray(table.predict(model, sample))
        given = _run(session, table, sample, is_double)
        if "output" not in found:
            found["output"] = _answer_output(names, given, expected)
        at = names.index(found["output"])
        found["difference"] = max(found["difference"], _difference(expected, given[at]))
        for row in range(min(SINGLE_ROWS, len(sample))):
            one = _run(session, table, sample[row : row + 1], is_double)[at]
            _difference(expected[row : row + 1], one)
    found["probabilities"] = _probabilities(names, found["output"], session, model, table, samples, is_double)
    return found


def _run(session, table, sample, is_double):
    return session.run(None, table.feed(sample, is_double))


def _answer_output(names, given, expected):
    """The name of the output that is the answer."""
    problem = None
    for name, values in zip(names, given):
        try:
            _difference(expected, values)
            return name
        except Different as error:
            problem = problem or error
    raise problem or Different("its graph has no outputs")


def _difference(expected, given):
    """The largest difference of numbers, 0 for labels; raises Different."""
    if not isinstance(given, numpy.ndarray) or given.size != expected.size or len(given) != len(expected):
        raise Different("its graph gives answers of another shape")
    given = given.reshape(expected.shape)
    if expected.dtype.kind != "f" or given.dtype.kind not in "f":
        if expected.dtype.kind in "OU":
            same = expected.astype(str) == given.astype(str)
        elif given.dtype.kind in "OU":
            raise Different("its graph gives texts")
        else:
            same = expected == given
        if not numpy.all(same):
            raise Different("its graph gives another label in {} of {} rows".format(int(numpy.sum(~same)), len(expected)))
        return 0.0
    if not numpy.array_equal(numpy.isnan(expected), numpy.isnan(given)):
        raise Different("its graph gives other missing values")
    expected, given = expected.astype(numpy.float64), given.astype(numpy.float64)
    finite = numpy.isfinite(expected)
    if not numpy.array_equal(expected[~finite & ~numpy.isnan(expected)], given[~finite & ~numpy.isnan(expected)]):
        raise Different("its graph gives other infinite values")
    if not finite.any():
        return 0.0
    middle = numpy.median(numpy.abs(expected[finite]))
    size = numpy.maximum(numpy.abs(expected[finite]), max(middle, 1e-30))
    difference = float(numpy.max(numpy.abs(expected[finite] - given[finite]) / size))
    if not difference <= RELATIVE:
        raise Different("its graph gives numbers that differ by {:.1e} of their size".format(difference))
    return difference


def _probabilities(names, answer, session, model, table, samples, is_double):
    """The output with what predict_proba gives, if there is one."""
    if not hasattr(model, "predict_proba"):
        return None
    for name in names:
        if name == answer:
            continue
        try:
            for sample in samples:
                expected = numpy.asarray(table.predict(model, sample, "predict_proba"))
                given = _run(session, table, sample, is_double)[names.index(name)]
                if given.shape != expected.shape or not numpy.allclose(expected, given, rtol=0, atol=RELATIVE):
                    raise Different("other probabilities")
            return name
        except Exception:
            continue
    return None
