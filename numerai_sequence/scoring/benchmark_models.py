"""Benchmarks: from a file, a frame or columns of other models to their values of some rows.

The meta model is one such model.
"""

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
    """Return the meta model's values of the rows of a sequence, NaN where it has none.

    Parameters
    ----------
    given : as of `read_benchmarks`
        It has the column ``numerai_meta_model``, or one column of numbers.

    Raises
    ------
    PredictionError
        It has several models; and as of `read_benchmarks`.
    """
    if given is None:
        return None
    found = models_in("meta_model", given, sequence.shards)
    if META_MODEL in found:
        found = {META_MODEL: found[META_MODEL]}
    if len(found) != 1:
        raise PredictionError(
            f"meta_model: found {listed(list(found)) or 'no model'}; expected one model: choose "
            "its column, such as frame['numerai_meta_model']"
        )
    values: Values = Lookup(sequence).fill("meta_model", next(iter(found.values())))
    return values


def read_benchmarks(given: Any, sequence: NumeraiSequence) -> dict[str, Values]:
    """Return the values of models by name, each a float32 array of shape (rows,).

    Parameters
    ----------
    given : str, path, frame, Series, or an iterable or mapping of these
        The name of a column of the set; the path of a file; or a table with ids. Columns that are
        no models are left out: text, features, and targets where there are models besides them.
    sequence : NumeraiSequence
        In the order of its rows come the values, NaN where a model has none.

    Raises
    ------
    FeatureError, SourceError, TypeError
        The column or the file is not there; or it is something else.
    PredictionError
        An id is there twice, a value is infinite, there is no model, or ids are not those of the
        set.
    """
    if given is None:
        return {}
    rows = Lookup(sequence)
    models = models_in("benchmarks", given, sequence.shards)
    return {name: rows.fill(name, sources) for name, sources in models.items()}
