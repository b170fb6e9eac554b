"""What a model takes: one array of numbers, or a table whose columns have names and types of their own."""


class Unclear(Exception):
    """It cannot be told what the model takes; the text is a clause that says why."""


class Table:
    """The columns of a model: for each its name and, for columns of texts, what may stand there."""

    def __init__(self, names, categories, is_named):
        self.names = names
        # Texts of each column, None for numbers.
        self.categories = categories
        # Whether the model finds columns by their names.
        self.is_named = is_named

    @property
    def has_texts(self):
        return any(texts is not None for texts in self.categories)

    @property
    def is_split(self):
        """Whether the graph has an input for each column."""
        return self.is_named or (self.has_texts and any(texts is None for texts in self.categories))

    def types(self, is_double):
        """The inputs of the graph, as the converter wants them."""
        from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType

        number = DoubleTensorType if is_double else FloatTensorType
        if not self.is_split:
            kind = StringTensorType if self.has_texts else number
            return [("input", kind([None, len(self.names)]))]
        return [
            (name, number([None, 1]) if texts is None else StringTensorType([None, 1]))
            for name, texts in zip(self.names, self.categories)
        ]

    def predict(self, model, sample, method="predict"):
        """What scikit-learn answers; `sample` has an array for each column."""
        return getattr(model, method)(self.frame(sample))

    def frame(self, sample):
        """The rows as the model takes them."""
        import numpy

        if self.is_named:
            import pandas

            return pandas.DataFrame({name: sample[:, at] for at, name in enumerate(self.names)}).astype(
                {name: "float32" for name, texts in zip(self.names, self.categories) if texts is None}
            )
        return sample if self.has_texts else sample.astype(numpy.float32)

    def feed(self, sample, is_double):
        """The rows as the graph takes them."""
        import numpy

        number = numpy.float64 if is_double else numpy.float32
        if not self.is_split:
            rows = sample.astype(str).astype(object) if self.has_texts else sample.astype(numpy.float32).astype(number)
            return {"input": rows}
        return {
            name: (sample[:, at : at + 1].astype(numpy.float32).astype(number) if texts is None else sample[:, at : at + 1])
            for at, (name, texts) in enumerate(zip(self.names, self.categories))
        }


def describe(model):
    """The table that a fitted model takes."""
    count = getattr(model, "n_features_in_", None)
    if count is None:
        raise Unclear("it does not say how many columns it takes")
    names = getattr(model, "feature_names_in_", None)
    is_named = names is not None and _selects_by_name(model)
    names = [str(name) for name in names] if names is not None else ["x{}".format(at) for at in range(count)]
    categories = [None] * count
    _find_texts(model, list(range(count)), names, categories)
    if is_named:
        try:
            import pandas  # noqa: F401
        except ImportError:
            raise Unclear("it finds columns by their names, and there is no pandas to compare with")
    return Table(names, categories, is_named)


def parts(estimator):
    """The first thing that sees the columns: of a pipeline its first steps up to one that changes them."""
    return [step for _, step in getattr(estimator, "steps", [])]


def selections(transformer, names):
    """(estimator, numbers of its columns) of a fitted ColumnTransformer."""
    found = []
    for _, inner, chosen in getattr(transformer, "transformers_", []):
        if not isinstance(inner, str):
            found.append((inner, _numbers(chosen, names)))
    return found


def _numbers(chosen, names):
    everything = list(range(len(names)))
    if isinstance(chosen, slice):
        if isinstance(chosen.start, str) or isinstance(chosen.stop, str):
            start = names.index(chosen.start) if chosen.start is not None else 0
            stop = names.index(chosen.stop) + 1 if chosen.stop is not None else len(names)
            return everything[start:stop]
        return everything[chosen]
    if isinstance(chosen, str):
        return [names.index(chosen)]
    chosen = list(chosen) if hasattr(chosen, "__len__") else [chosen]
    if chosen and all(type(one).__name__ in ("bool", "bool_") for one in chosen):
        return [at for at, is_chosen in enumerate(chosen) if is_chosen]
    return [names.index(one) if isinstance(one, str) else int(one) % len(names) for one in chosen]


def _selects_by_name(estimator):
    for step in parts(estimator):
        if _selects_by_name(step):
            return True
    for _, inner, chosen in getattr(estimator, "transformers_", []):
        named = chosen if isinstance(chosen, (list, tuple)) or hasattr(chosen, "dtype") else [chosen]
        if isinstance(chosen, slice):
            named = [chosen.start, chosen.stop]
        if any(isinstance(one, str) for one in named) and not (isinstance(inner, str) and inner == "drop"):
            return True
    return False


def _find_texts(estimator, numbers, names, categories):
    """Notes the texts of columns that an encoder or an imputer of texts sees first."""
    for step in parts(estimator):
        _find_texts(step, numbers, names, categories)
        # What an imputer or a scaler leaves has the same columns; after anything else the columns are others.
        if type(step).__name__ != "SimpleImputer":
            return
    for inner, chosen in selections(estimator, names):
        _find_texts(inner, [numbers[at] for at in chosen], [names[at] for at in chosen], categories)
    for at, known in zip(numbers, getattr(estimator, "categories_", [])):
        if known.dtype.kind in "OUS":
            categories[at] = [str(value) for value in known if isinstance(value, str)]
    for at, value in zip(numbers, getattr(estimator, "statistics_", [])):
        if isinstance(value, str) and categories[at] is None:
            categories[at] = [value]
