"""Makes the models of the native engine's tests with the real libraries (xgboost-cpu 3.2.0, lightgbm 4.7.0, numpy):

    python crates/serving/tests/models/generate.py

`cases.json` has for each model the rows that it was asked and what the library predicted; null is a missing value.
"""

import json
import sys
from pathlib import Path

import lightgbm
import numpy
import xgboost

HERE = Path(__file__).parent
FEATURES = 6
# What the rows of `cases.json` are; more of them than a block has.
ASKED = 80
random = numpy.random.default_rng(7)


def table(rows, categories=False):
    """Numbers with holes; with `categories` the last two columns are small whole numbers."""
    values = random.normal(size=(rows, FEATURES)).round(3)
    values[:, 1] = random.integers(-2, 3, rows)
    if categories:
        values[:, -1] = random.integers(0, 40, rows)
        values[:, -2] = random.integers(0, 3, rows)
    values[random.random(values.shape) < 0.15] = numpy.nan
    return values


def target(values):
    full = numpy.nan_to_num(values)
    return full[:, 0] * 2 + full[:, 1] - full[:, 2] * full[:, 3] + (full[:, -1] % 7) / 3


def xgboost_model(parameters, labels, rounds=6, categories=False, early=False, **data):
    values = table(400, categories)
    types = ["q"] * (FEATURES - 2) + ["c", "c"] if categories else None
    matrix = xgboost.DMatrix(values, labels(target(values)), feature_types=types, enable_categorical=categories, **data)
    settings = {"max_depth": 4, "eta": 0.4, "seed": 3, "nthread": 1, **parameters}
    if not early:
        return xgboost.train(settings, matrix, rounds)
    other = table(200)
    held = xgboost.DMatrix(other, labels(target(other))[::-1])
    return xgboost.train(settings, matrix, rounds, evals=[(held, "held")], early_stopping_rounds=2, verbose_eval=False)


def xgboost_answers(model, rows, categories):
    types = ["q"] * (FEATURES - 2) + ["c", "c"] if categories else None
    matrix = xgboost.DMatrix(rows, feature_types=types, enable_categorical=categories)
    best = model.attr("best_iteration")
    return model.predict(matrix, iteration_range=(0, int(best) + 1) if best else (0, 0))


def xgboost_cases():
    number = lambda y: y
    positive = lambda y: numpy.exp(y / 4)
    binary = lambda y: (y > 0).astype(float)
    classes = lambda y: numpy.digitize(y, [-1, 0, 1]).astype(float)
    several = lambda y: numpy.column_stack([y, -2 * y])
    yield "regression.json", dict(parameters={"objective": "reg:squarederror"}, labels=number)
    yield "logistic.ubj", dict(parameters={"objective": "binary:logistic"}, labels=binary)
    yield "scored.json", dict(parameters={"objective": "binary:logistic", "base_score": 0.2}, labels=binary)
    yield "logitraw.ubj", dict(parameters={"objective": "binary:logitraw"}, labels=binary)
    yield "hinge.json", dict(parameters={"objective": "binary:hinge"}, labels=binary)
    yield "softprob.ubj", dict(parameters={"objective": "multi:softprob", "num_class": 4}, labels=classes)
    yield "softmax.json", dict(parameters={"objective": "multi:softmax", "num_class": 4}, labels=classes)
    yield "poisson.ubj", dict(parameters={"objective": "count:poisson"}, labels=lambda y: numpy.floor(positive(y)))
    yield "gamma.json", dict(parameters={"objective": "reg:gamma"}, labels=positive)
    yield "tweedie.ubj", dict(parameters={"objective": "reg:tweedie"}, labels=positive)
    yield "absolute.ubj", dict(parameters={"objective": "reg:absoluteerror"}, labels=number)
    yield "quantiles.json", dict(parameters={"objective": "reg:quantileerror", "quantile_alpha": [0.1, 0.5, 0.9]}, labels=number)
    yield "pairwise.ubj", dict(parameters={"objective": "rank:pairwise"}, labels=lambda y: classes(y), group=[20] * 20)
    yield "dropout.json", dict(parameters={"objective": "binary:logistic", "booster": "dart", "rate_drop": 0.3}, labels=binary)
    yield "linear.json", dict(parameters={"objective": "reg:squarederror", "booster": "gblinear"}, labels=number)
    linear = {"objective": "multi:softprob", "num_class": 4, "booster": "gblinear"}
    yield "linear-classes.ubj", dict(parameters={**linear, "base_score": 0.5}, labels=classes)
    yield "refused-linear-classes.ubj", dict(parameters=linear, labels=classes)
    yield "forest.ubj", dict(
        parameters={"objective": "multi:softprob", "num_class": 4, "num_parallel_tree": 3, "subsample": 0.6}, labels=classes, rounds=2
    )
    yield "stopped-early.ubj", dict(parameters={"objective": "reg:squarederror"}, labels=number, rounds=20, early=True)
    yield "targets.json", dict(parameters={"objective": "reg:squarederror"}, labels=several)
    yield "categories.json", dict(parameters={"objective": "reg:squarederror", "max_cat_to_onehot": 4}, labels=number, categories=True)
    yield "categories.ubj", dict(parameters={"objective": "binary:logistic", "max_cat_to_onehot": 1}, labels=binary, categories=True)
    yield "refused-vector-leaves.json", dict(
        parameters={"objective": "reg:squarederror", "multi_strategy": "multi_output_tree"}, labels=several, rounds=1
    )
    yield "refused-cox.ubj", dict(parameters={"objective": "survival:cox"}, labels=positive, rounds=1)


def lightgbm_model(parameters, labels, categories=False, rounds=6, **data):
    values = table(600, categories)
    columns = [FEATURES - 2, FEATURES - 1] if categories else "auto"
    settings = {"verbose": -1, "num_leaves": 12, "min_data_in_leaf": 8, "num_threads": 1, "seed": 3, "deterministic": True}
    settings.update({"min_data_per_group": 8, "cat_smooth": 1, "max_cat_to_onehot": 4, **parameters})
    return lightgbm.train(settings, lightgbm.Dataset(values, labels(target(values)), categorical_feature=columns, **data), rounds)


def lightgbm_cases():
    number = lambda y: y
    positive = lambda y: numpy.exp(y / 4)
    binary = lambda y: (y > 0).astype(float)
    classes = lambda y: numpy.digitize(y, [-1, 0, 1]).astype(float)
    yield "regression.txt", dict(parameters={"objective": "regression"}, labels=number)
    yield "square.txt", dict(parameters={"objective": "regression", "reg_sqrt": True}, labels=number)
    yield "absolute.txt", dict(parameters={"objective": "regression_l1"}, labels=number)
    yield "binary.txt", dict(parameters={"objective": "binary", "sigmoid": 2}, labels=binary)
    yield "zeros-are-missing.txt", dict(parameters={"objective": "binary", "zero_as_missing": True}, labels=binary)
    yield "nothing-is-missing.txt", dict(parameters={"objective": "binary", "use_missing": False}, labels=binary)
    yield "multiclass.txt", dict(parameters={"objective": "multiclass", "num_class": 4}, labels=classes)
    yield "one-versus-all.txt", dict(parameters={"objective": "multiclassova", "num_class": 4}, labels=classes)
    yield "poisson.txt", dict(parameters={"objective": "poisson"}, labels=positive)
    yield "cross-entropy.txt", dict(parameters={"objective": "cross_entropy"}, labels=binary)
    yield "cross-entropy-lambda.txt", dict(parameters={"objective": "cross_entropy_lambda"}, labels=binary)
    yield "categories.txt", dict(parameters={"objective": "regression"}, labels=number, categories=True)
    yield "average.txt", dict(
        parameters={"objective": "binary", "boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.6}, labels=binary
    )
    yield "dropout.txt", dict(parameters={"objective": "regression", "boosting": "dart"}, labels=number)
    yield "rank.txt", dict(parameters={"objective": "lambdarank"}, labels=classes, group=[20] * 30)
    yield "refused-linear-leaves.txt", dict(parameters={"objective": "regression", "linear_tree": True}, labels=number, rounds=1)


def plain(values):
    return [[None if numpy.isnan(value) else value for value in row] for row in values.tolist()]


def main():
    cases = []
    for name, options in xgboost_cases():
        print(name, file=sys.stderr)
        categories = options.get("categories", False)
        model = xgboost_model(**options)
        model.save_model(HERE / name)
        if not name.startswith("refused"):
            rows = table(ASKED, categories)
            if categories:
                rows[0, -1], rows[1, -1] = 41, 70  # no category that it saw
            cases.append({"model": name, "rows": plain(rows), "predictions": xgboost_answers(model, rows, categories).tolist()})
    for name, options in lightgbm_cases():
        print(name, file=sys.stderr)
        categories = options.get("categories", False)
        model = lightgbm_model(**options)
        model.save_model(HERE / name)
        if not name.startswith("refused"):
            rows = table(ASKED, categories)
            rows[2, 1], rows[3, 1] = 0.0, -0.0
            if categories:
                rows[0, -1], rows[1, -1], rows[2, -2] = 41, -1, 1.7
            cases.append({"model": name, "rows": plain(rows), "predictions": model.predict(rows).tolist()})
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    (HERE / "cases.json").write_text("[\n" + lines + "\n]\n")


if __name__ == "__main__":
    main()
