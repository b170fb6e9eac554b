"""The XGBoost defaults: a booster file, CSV, LIBSVM or JSON rows in, predictions out."""
import inspect
import json
import os
import pickle

from model_host import content
from model_host.errors import BaseInferenceToolkitError, HostError, UnsupportedFormatError
from model_host.frameworks.base import DefaultFunctions, model_files

_LIBSVM_TYPES = ("text/libsvm", "text/x-libsvm")
# What may stand between cells, in the order in which the first row is asked for it.
_DELIMITERS = (",", ";", "\t", "|", " ")
_NO_MODELS = (".py", ".txt", ".md", ".csv")


class XgboostDefault(DefaultFunctions):
    """Rows become a DMatrix; with a script, the answer is written as the other defaults write it."""

    @classmethod
    def alone(cls, model_dir):
        return XgboostAlone() if _find(model_dir) else None

    def model_fn(self, model_dir):
        name = _find(model_dir)
        if name is None:
            return super().model_fn(model_dir)
        return _load(os.path.join(model_dir, name))

    def why_no_model(self, model_dir):
        return "there is no file xgboost-model (nor any other single model file) in {} (found: {})".format(
            model_dir, model_files(model_dir)
        )

    def input_fn(self, body, content_type):
        return self.matrix_fn(self.rows_fn(body, content_type))

    def rows_fn(self, body, content_type):
        """The rows of a body as a table."""
        return _to_rows(body, content_type)

    def matrix_fn(self, rows):
        """What `predict_fn` takes, of rows."""
        import xgboost

        return xgboost.DMatrix(rows)

    def predict_fn(self, data, model):
        import xgboost

        # A scikit-learn wrapper knows how to turn scores into classes, but takes arrays; its booster takes the matrix.
        if not isinstance(model, xgboost.Booster) and hasattr(model, "get_booster"):
            model = model.get_booster()
        return model.predict(data, validate_features=False, **_best_rounds(model))


class XgboostAlone(XgboostDefault):
    """A trained booster without a script: the answer is CSV in one line unless JSON is asked for."""

    default_accept = content.CSV
    default_content_type = content.CSV

    def input_fn(self, body, content_type):
        try:
            return super().input_fn(body, content_type)
        except UnsupportedFormatError:
            raise
        except Exception as error:
            kind = content.media_type(content_type).split("/")[-1]
            raise BaseInferenceToolkitError(
                415, "Loading {0} data failed with Exception, please ensure data is in {0} format: {1}".format(kind, error)
            ) from error

    def predict_fn(self, data, model):
        try:
            return super().predict_fn(data, model)
        except ValueError as error:  # as XGBoost's own errors are
            raise BaseInferenceToolkitError(400, "Unable to evaluate payload provided: {}".format(error)) from error

    def output_fn(self, prediction, accept):
        scores = prediction.tolist()
        chosen = content.choose_type(accept, (content.CSV, content.JSON, content.JSON_LINES), content.CSV)
        if chosen == content.JSON:
            return json.dumps({"predictions": [{"score": score} for score in scores]}), chosen
        if chosen == content.JSON_LINES:
            return "".join(json.dumps({"score": score}) + "\n" for score in scores), chosen
        if chosen == content.CSV:
            if os.environ.get("SAGEMAKER_BATCH"):
                return "\n".join(str(score) for score in scores) + "\n", chosen
            return ",".join(str(score) for score in scores), chosen
        raise UnsupportedFormatError(accept)


def _find(model_dir):
    names = [name for name in model_files(model_dir) if not name.lower().endswith(_NO_MODELS)]
    if "xgboost-model" in names:
        return "xgboost-model"
    return names[0] if len(names) == 1 else None


def _load(path):
    try:
        import xgboost
    except ImportError as error:
        raise HostError("{} needs xgboost, which is not installed in this environment.".format(path)) from error
    try:
        with open(path, "rb") as file:
            return pickle.load(file)
    except Exception as pickle_error:
        booster = xgboost.Booster()
        try:
            booster.load_model(path)
        except xgboost.core.XGBoostError as error:
            raise HostError(
                "{} is neither a pickled model ({}) nor an XGBoost model file ({}).".format(path, pickle_error, error)
            ) from error
        return booster


def _best_rounds(booster):
    """The rounds up to the best one, for a booster whose training was stopped early; nothing for others."""
    best = booster.attr("best_iteration")
    if best is None or json.loads(booster.save_config())["learner"]["learner_train_param"]["booster"] == "gblinear":
        return {}
    if "iteration_range" in inspect.signature(booster.predict).parameters:
        return {"iteration_range": (0, int(best) + 1)}
    return {"ntree_limit": int(booster.attr("best_ntree_limit") or 0)}


def _to_rows(body, content_type):
    kind = content.media_type(content_type)
    if kind in _LIBSVM_TYPES:
        return _libsvm_to_sparse(content.text(body))
    if kind == content.CSV:
        numpy = content.numpy()
        lines = content.text(body).strip().splitlines()
        delimiter = next((mark for mark in _DELIMITERS if lines and mark in lines[0]), ",")
        rows = [
            [float("nan") if cell.strip() == "" else float(cell) for cell in line.split(delimiter)] for line in lines
        ]
        return numpy.array(rows)
    data = content.decode(body, content_type)
    return data.reshape(1, -1) if getattr(data, "ndim", 2) == 1 else data


def _libsvm_to_sparse(text):
    """Rows of `[label] index:value ...`; the label is ignored."""
    from scipy.sparse import csr_matrix

    values, columns, row_ends = [], [], [0]
    for line in text.strip().splitlines():
        for item in line.split():
            column, colon, value = item.partition(":")
            if colon and column != "qid":
                columns.append(int(column))
                values.append(float(value))
        row_ends.append(len(values))
    return csr_matrix((values, columns, row_ends))
