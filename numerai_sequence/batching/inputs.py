"""Inputs: read the other inputs of a model from files, frames or columns of the shard set."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..checks import names_in_order, short
from ..errors import EraError, FeatureError, check_known
from ..format.layout import FEATURES
from ..reading.join_by_id import Lookup, Source, models_in
from ..reading.selection import Selection
from ..reading.shard_set import ShardSet
from ..reading.tables import is_table
from .targets import shown_eras

Values = npt.NDArray[np.float32]
# The columns of each input of a model, by its name.
Inputs = Mapping[str, tuple[str, ...]]


def read_inputs(given: Any) -> dict[str, tuple[Any, tuple[str, ...] | None]]:
    """Return the source and the columns of each input. None for all columns of the source.

    Parameters
    ----------
    given : mapping or None
        ``inputs`` of `NumeraiSequence`.

    Raises
    ------
    TypeError, ValueError
        It is not a mapping, or an input has the name of the features.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise TypeError(
            f"inputs: found {short(given)}, expected a dict such as "
            "{'benchmarks': 'validation_benchmark_models.parquet'}"
        )
    for name in given:
        if not isinstance(name, str):
            raise TypeError(f"inputs: found {short(name)}, expected the name of a model's Input")
        if name == FEATURES or not name:
            raise ValueError(
                f"inputs: found an input {name!r}, expected another name, because {FEATURES!r} is "
                "the name of the features"
            )
    return {str(name): _split(str(name), one) for name, one in given.items()}


def _split(name: str, given: Any) -> tuple[Any, tuple[str, ...] | None]:
    """Return the source and the columns of ``(source, [columns])``, or of a source alone."""
    is_source = not isinstance(given, tuple) or len(given) != 2
    if is_source or isinstance(given[1], (str, os.PathLike)) or is_table(given[1]):
        return given, None
    source, columns = given
    names = names_in_order(_where(name), columns)
    if not names:
        raise ValueError(f"{_where(name)}: found no column, expected at least one")
    check_known("column", names, names, _where(name))  # none twice
    return source, names


def _where(name: str) -> str:
    return f"inputs[{name!r}]"


def column_key(name: str, column: str) -> str:
    """Return the name of an input's column among the columns of a selection."""
    return f"{_where(name)}[{column!r}]"


def keys_of(inputs: Inputs) -> dict[str, tuple[str, ...]]:
    """Return the names of each input's columns among the columns of a selection."""
    return {name: tuple(column_key(name, one) for one in inputs[name]) for name in inputs}


def find_columns(given: Any, shards: ShardSet | None) -> dict[str, tuple[str, ...]]:
    """Return the columns of each input by its name.

    Parameters
    ----------
    given : mapping or None
        See `read_inputs`.
    shards : ShardSet, optional
        Shard set that may have the columns.
    """
    return {name: tuple(found) for name, found in _find(given, shards).items()}


def _find(given: Any, shards: ShardSet | None) -> dict[str, dict[str, list[Source]]]:
    return {name: _models(name, *one, shards) for name, one in read_inputs(given).items()}


def _models(
    name: str, source: Any, columns: tuple[str, ...] | None, shards: ShardSet | None
) -> dict[str, list[Source]]:
    found = models_in(_where(name), source, shards)
    if columns is None:
        return found
    check_known("column", columns, tuple(found), _where(name))
    return {column: found[column] for column in columns}


def input_columns(given: Any, selection: Selection) -> tuple[Inputs, dict[str, Values]]:
    """Return the columns of each input by its name, and their values by `column_key`.

    Raises
    ------
    FeatureError, PredictionError, SourceError, TypeError
        A source cannot be read, or has no such column. See `Lookup`.
    """
    found, lookup = _find(given, selection.shards), Lookup(selection)
    values = {
        column_key(name, column): lookup.fill(column_key(name, column), sources)
        for name, models in found.items()
        for column, sources in models.items()
    }
    return {name: tuple(models) for name, models in found.items()}, values


def check_inputs_complete(selection: Selection, inputs: Inputs) -> None:
    """Raise an `EraError` if a selected row has no value in a column of an input."""
    for name, keys in keys_of(inputs).items():
        for key, column in zip(keys, inputs[name], strict=True):
            missing = selection.missing(key)
            if missing:
                eras = list(missing)
                raise EraError(
                    f"{_where(name)}: column {column!r} has no value in "
                    f"{sum(missing.values()):,} of {selection.rows:,} rows "
                    f"({shown_eras(eras)}); choose eras without missing values with "
                    "eras=, or give a list of sources that has the missing rows",
                    eras=eras,
                )


def check_same_inputs(known: Inputs, asked: Inputs, what: str) -> None:
    """Raise a `FeatureError` if the given inputs differ from the inputs of a model's training."""
    if {**known} == {**asked}:
        return
    lacking = [name for name in known if name not in asked]
    if lacking:
        found, expected = f"no input {lacking[0]!r}", known[lacking[0]]
    elif other := [name for name in asked if name not in known]:
        found, expected = f"an input {other[0]!r}", ()
    else:
        [name, *_] = [name for name in known if known[name] != asked[name]]
        found, expected = f"the columns {short(list(asked[name]))} in input {name!r}", known[name]
    wanted = f"the columns {short(list(expected))}, in this order" if expected else "no such input"
    raise FeatureError(
        f"{what}: found {found}, expected {wanted}, as in training; give the inputs of the "
        "training sequence with inputs=",
        names=tuple(expected),
    )
