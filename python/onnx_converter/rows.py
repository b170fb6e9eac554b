"""Rows on which a model and its graph are compared: what the model itself says where its answers change."""
import numpy

import columns

# Numbers of any size, for columns of which nothing is known.
_SCALES = (1e-3, 1.0, 10.0, 1e3)


class Rows:
    """Makes rows; a column's values are the thresholds, centres and categories that the model has for it, and what lies around them."""

    def __init__(self, random, model, table):
        self._random = random
        self._table = table
        count = len(table.names)
        self._values = [[] for _ in range(count)]
        self._spreads = [1.0] * count
        _collect(model, list(range(count)), table.names, self._values, self._spreads)
        self._behind = _behind_steps(model, count)

    def plain(self, count):
        """Rows of numbers and known texts."""
        made = [self._column(at, count) for at in range(len(self._table.names))]
        if self._table.has_texts:
            sample = numpy.empty((count, len(made)), dtype=object)
        else:
            sample = numpy.empty((count, len(made)), dtype=numpy.float64)
        for at, column in enumerate(made):
            sample[:, at] = column
        if self._behind is not None and not self._table.has_texts:
            known = self._behind[self._random.integers(0, len(self._behind), count // 4)]
            sample[: len(known)] = known.astype(numpy.float32)
        return sample

    def with_missing(self, count):
        """Rows in which numbers are missing, in some of them all."""
        sample = self.plain(count)
        for at in self.numbers():
            sample[self._random.random(count) < 0.2, at] = numpy.nan
            sample[:8, at] = numpy.nan
        return sample

    def with_infinite(self, count):
        """Rows with infinite numbers."""
        sample = self.plain(count)
        for at in self.numbers():
            sample[self._random.random(count) < 0.1, at] = numpy.inf
            sample[self._random.random(count) < 0.1, at] = -numpy.inf
        return sample

    def numbers(self):
        """The columns of numbers."""
        return [at for at, texts in enumerate(self._table.categories) if texts is None]

    def _column(self, at, count):
        random = self._random
        texts = self._table.categories[at]
        if texts is not None:
            # Some that the model has not seen.
            return random.choice(numpy.array(list(texts) + ["unseen"], dtype=object), count)
        known = numpy.array(sorted(set(self._values[at])), dtype=numpy.float64)
        known = known[numpy.isfinite(known)]
        column = random.normal(size=count) * random.choice(_SCALES, count) * self._spreads[at]
        if len(known):
            near = random.choice(known, count).astype(numpy.float32)
            way = random.integers(0, 4, count)
            near = numpy.where(way == 1, numpy.nextafter(near, numpy.float32(numpy.inf)), near)
            near = numpy.where(way == 2, numpy.nextafter(near, numpy.float32(-numpy.inf)), near)
            around = random.choice(known, count) + random.normal(size=count) * self._spreads[at]
            column = numpy.where(random.random(count) < 0.5, near, numpy.where(way == 3, around, column))
        column = numpy.where(random.random(count) < 0.05, numpy.round(column), column)
        return column.astype(numpy.float32)


def _collect(estimator, numbers, names, values, spreads):
    """Notes what a fitted estimator says of the columns that it sees."""
    for step in columns.parts(estimator):
        _collect(step, numbers, names, values, spreads)
        if type(step).__name__ != "SimpleImputer":
            break
    for inner, chosen in columns.selections(estimator, names):
        _collect(inner, [numbers[at] for at in chosen], [names[at] for at in chosen], values, spreads)
    for name in ("mean_", "center_", "data_min_", "data_max_", "statistics_", "offset_"):
        for at, value in zip(numbers, numpy.atleast_1d(_numeric(getattr(estimator, name, None)))):
            values[at].append(float(value))
    for at, value in zip(numbers, numpy.atleast_1d(_numeric(getattr(estimator, "scale_", None)))):
        if numpy.isfinite(value) and value > 0:
            spreads[at] = float(value)
    for at, known in zip(numbers, getattr(estimator, "categories_", [])):
        values[at].extend(float(value) for value in _numeric(known))
    for feature, threshold in _thresholds(estimator):
        if 0 <= feature < len(numbers):
            values[numbers[feature]].append(threshold)
    for at in numbers:
        finite = [value for value in values[at] if numpy.isfinite(value)]
        if spreads[at] == 1.0 and len(finite) > 3:
            spreads[at] = float(numpy.std(finite)) or 1.0


def _numeric(values):
    if values is None:
        return numpy.empty(0)
    try:
        return numpy.asarray(values, dtype=numpy.float64).ravel()
    except (TypeError, ValueError):
        return numpy.empty(0)


def _thresholds(estimator):
    """(column, threshold) of all nodes of a tree or an ensemble of trees."""
    inner = getattr(estimator, "tree_", None)
    if inner is not None:
        is_node = inner.children_left >= 0
        return list(zip(inner.feature[is_node].tolist(), inner.threshold[is_node].tolist()))
    found = []
    for group in getattr(estimator, "_predictors", None) or []:
        for predictor in group:
            nodes = predictor.nodes
            is_node = (nodes["is_leaf"] == 0) & (nodes["is_categorical"] == 0)
            found.extend(zip(nodes["feature_idx"][is_node].tolist(), nodes["num_threshold"][is_node].tolist()))
    several = getattr(estimator, "estimators_", None)
    if several is not None:
        for one in numpy.ravel(numpy.asarray(several, dtype=object)):
            if one is not estimator and hasattr(one, "predict"):
                found.extend(_thresholds(one))
    return found


def _behind_steps(model, count):
    """Rows whose numbers are at the thresholds of trees that see them only after other steps; None where there are none."""
    steps = columns.parts(model)
    if len(steps) < 2:
        return None
    thresholds = _thresholds(steps[-1])
    if not thresholds:
        return None
    try:
        width = steps[-1].n_features_in_
        rows = numpy.zeros((min(len(thresholds), 1024), width))
        for row, (feature, threshold) in zip(rows, thresholds):
            row[feature] = threshold
        for step in reversed(steps[:-1]):
            rows = step.inverse_transform(rows)
        rows = numpy.asarray(rows, dtype=numpy.float64)
    except Exception:
        return None  # such steps cannot be undone
    return rows if rows.shape[1] == count and numpy.isfinite(rows).all() else None
