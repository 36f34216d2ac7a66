"""Given predictions: read each model's predictions for some rows from frames, Series and files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..checks import short
from ..errors import PredictionError
from ..feeding.sequence import NumeraiSequence
from ..ordering.eras import era_codes
from ..reading.join_by_id import Lookup, Source, is_column, listed, models_of, several
from ..reading.tables import is_table, read_frame

Values = npt.NDArray[np.float64]

EXPECTED = (
    "expected a frame or Series of predictions with ids as its index or in a column 'id', the path "
    "of a .parquet or .csv file, or a list or dict of these"
)


def read_predictions(given: Any, sequence: NumeraiSequence) -> dict[str, Values]:
    """Return each model's predictions for the rows of a sequence. NaN marks missing eras.

    Parameters
    ----------
    given : frame, Series, path, or a list or mapping of these
        Predictions by id. Each column of numbers is a model, except features and targets. The keys
        of a mapping name the models. In a list, a file with one model gives it the file's name.
    sequence : NumeraiSequence

    Raises
    ------
    SourceError, TypeError
        A file cannot be read, or `given` is something else.
    PredictionError
        Two models have the same name, an id appears twice, a value is infinite, or a model has
        predictions for only some rows of an era, or for none of the eras.
    """
    found = list(_named(given, sequence))
    names = [name for name, _ in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise PredictionError(
            f"predictions: found {listed(twice)} twice, expected a name for each model; pass a "
            "dict, such as {'first': ..., 'second': ...}"
        )
    rows = Lookup(sequence, np.float64)
    eras, codes = era_codes(sequence.column("era"))
    models = {name: rows.fill(name, [source]) for name, source in found}
    for name, values in models.items():
        _check_whole_eras(name, values, eras, codes)
    return models


def _named(given: Any, sequence: NumeraiSequence) -> Iterator[tuple[str, Source]]:
    if isinstance(given, Mapping):
        for name, one in given.items():
            models = _read(f"predictions[{name!r}]", one, sequence)
            yield from _under(str(name), models)
        return
    parts = several(given)
    if not isinstance(parts, list):
        yield from _read("predictions", parts, sequence).items()
        return
    for label, part in zip(_labels(parts), parts, strict=True):
        models = _read("predictions", part, sequence)
        yield from _under(label, models)


def _under(label: str, models: dict[str, Source]) -> Iterator[tuple[str, Source]]:
    """Yield models by name: the label for a single model, label and column for several."""
    for name, source in models.items():
        yield label if len(models) == 1 else f"{label}/{name}", source


def _labels(parts: list[Any]) -> list[str]:
    """Return a name for each entry of a list: the name of its file or Series, or its number."""
    labels = [_label(part, number) for number, part in enumerate(parts)]
    paths = [Path(part) if isinstance(part, (str, os.PathLike)) else None for part in parts]
    return [
        f"{path.parent.name}/{label}" if path and labels.count(label) > 1 else label
        for path, label in zip(paths, labels, strict=True)
    ]


def _label(part: Any, number: int) -> str:
    if isinstance(part, (str, os.PathLike)):
        return Path(part).stem
    name = getattr(part, "name", None)
    return f"model_{number}" if name is None else str(name)


def _read(option: str, given: Any, sequence: NumeraiSequence) -> dict[str, Source]:
    if isinstance(given, str) and is_column(option, given, sequence.shards):
        return {given: given}
    if not isinstance(given, (str, os.PathLike)) and not is_table(given):
        raise TypeError(f"{option}: found {short(given)}, {EXPECTED}")
    frame = read_frame(option, given, EXPECTED, unnamed="prediction")
    return {name: (frame, name) for name in models_of(option, frame)}


def _check_whole_eras(
    name: str, values: Values, eras: list[str], codes: npt.NDArray[np.int32]
) -> None:
    sizes = np.bincount(codes, minlength=len(eras))
    missing = np.bincount(codes[np.isnan(values)], minlength=len(eras))
    if missing.sum() == len(values):
        raise PredictionError(
            f"{name!r}: found no prediction for the {len(values):,} rows to score, expected "
            "predictions of the same eras, by id"
        )
    if len(partly := np.flatnonzero((missing > 0) & (missing < sizes))):
        era, more = partly[0], f" (and of {len(partly) - 1:,} more eras)" if partly[1:].size else ""
        raise PredictionError(
            f"{name!r}: found no prediction for {missing[era]:,} of {sizes[era]:,} rows of era "
            f"{eras[era]}{more}, expected one for every row of an era, or for none; predict the "
            "rows again, or choose other eras with eras="
        )
