"""Benchmark models: read the values of other models, such as the meta model, for some rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import PredictionError
from ..feeding.sequence import NumeraiSequence
from ..reading.join_by_id import Lookup, listed, models_in

Values = npt.NDArray[np.float32]

META_MODEL = "numerai_meta_model"


def read_meta_model(given: Any, sequence: NumeraiSequence) -> Values | None:
    """Return the meta model's values for the rows of a sequence. NaN marks missing values.

    Parameters
    ----------
    given : str, path, frame or Series
        Source of the meta model. It has the column ``numerai_meta_model``, or only one column of
        numbers. See `read_benchmarks`.

    Raises
    ------
    PredictionError
        The source has several models. For other errors see `read_benchmarks`.
    """
    if given is None:
        return None
    found = models_in("meta_model", given, sequence.shards)
    if META_MODEL in found:
        found = {META_MODEL: found[META_MODEL]}
    if len(found) != 1:
        raise PredictionError(
            f"meta_model: found {listed(list(found)) or 'no model'}, expected one model; choose "
            "its column, such as frame['numerai_meta_model']"
        )
    values: Values = Lookup(sequence).fill("meta_model", next(iter(found.values())))
    return values


def read_benchmarks(given: Any, sequence: NumeraiSequence) -> dict[str, Values]:
    """Return the values of other models by name, each a float32 array of shape (rows,).

    Parameters
    ----------
    given : str, path, frame, Series, or an iterable or mapping of these
        Name of a column of the set, path of a file, or table with ids. Text columns and features
        are left out. So are targets, unless there is no other column of numbers.
    sequence : NumeraiSequence
        Rows to look up, in this order. NaN marks missing values.

    Raises
    ------
    FeatureError, SourceError, TypeError
        A column or file does not exist, or `given` is something else.
    PredictionError
        An id appears twice, a value is infinite, there is no model, or no id is in the set.
    """
    if given is None:
        return {}
    rows = Lookup(sequence)
    models = models_in("benchmarks", given, sequence.shards)
    return {name: rows.fill(name, sources) for name, sources in models.items()}
