"""Which loaded models give a row the same answer, to the last digit, whatever rows stand beside it.

Trees look at each row for itself and add their leaves in one order. Products of matrices do not: libraries multiply one row in another
order than many, which changes last digits. A model is told by the class that it is, not by one that it is derived from.
"""

# Classes by the module that they are in: all of it, or those named.
_MODELS = {
    "sklearn.tree._classes": None,
    "sklearn.ensemble._forest": ("RandomForestClassifier", "RandomForestRegressor", "ExtraTreesClassifier", "ExtraTreesRegressor"),
    "sklearn.ensemble._gb": None,
    "sklearn.ensemble._hist_gradient_boosting.gradient_boosting": None,
    "xgboost.core": ("Booster",),
    "xgboost.sklearn": None,
    "lightgbm.basic": ("Booster",),
    "lightgbm.sklearn": None,
}
_TRANSFORMERS = {
    "sklearn.impute._base": ("SimpleImputer",),
    "sklearn.preprocessing._data": ("StandardScaler", "MinMaxScaler", "MaxAbsScaler", "RobustScaler"),
}
# Of models that ignore their input: those that throw no dice.
_DUMMY = "sklearn.dummy"
_CONSTANT = ("prior", "most_frequent", "constant", "mean", "median", "quantile")


def is_exact(model):
    """Whether `predict` of the model is one of those."""
    kind = type(model)
    if kind.__module__ == "sklearn.pipeline" and kind.__name__ == "Pipeline":
        *transformers, last = [step for _, step in model.steps]
        return is_exact(last) and all(step in (None, "passthrough") or _is_in(_TRANSFORMERS, step) for step in transformers)
    if kind.__module__ == _DUMMY:
        return getattr(model, "strategy", None) in _CONSTANT
    if not _is_in(_MODELS, model):
        return False
    # Boosting may begin at what another model says.
    first = getattr(model, "init_", None)
    return first is None or isinstance(first, str) or is_exact(first)


def _is_in(known, model):
    kind = type(model)
    return kind.__module__ in known and kind.__name__ in (known[kind.__module__] or (kind.__name__,))
