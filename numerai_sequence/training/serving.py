"""Serving: a saved model, and what its run knows of it, become predictions and an upload."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FeatureError, NumeraiSequenceError
from ..feeding.keras_compat import active_keras
from ..feeding.model_input import input_noted
from ..predicting.data import is_parquet
from ..predicting.ensembles import ensemble
from ..predicting.export import export_predict, input_to_export, runs_where
from ..predicting.named import load_model
from ..predicting.predictions import predict
from ..predicting.submission import write_predictions
from .runs import Run, find_run, runs_in

# Of live data, about.
_LIVE_ROWS = 7000


def predict_file(
    model: Path,
    data: str,
    out: Path,
    *,
    features: str | None,
    eras: str | None,
    output: str | None = None,
    batch_by: str | None,
    ranked: bool,
    progress: bool,
    by: str | None = None,
    weights: list[float] | None = None,
) -> int:
    """Write the predictions of a model or an ensemble, and return how many.

    Data are a shard set or a Parquet file.

    Parameters
    ----------
    model : path
        The folder of a run, or of several; or the file of a model.
    data : path
        As of `predict`.
    out : path
        As of `write_predictions`.
    features : str, optional
        The name of a feature set. None for those that the model was trained on, or for all, where
        these are not known.
    eras : str, optional
        Of a shard set; None for all.
    output : str, optional
        Of a model of several; None for that of the run, or the only one.
    batch_by : {"rows", "era"}, optional
        As of `predict`.
    by, weights : optional
        As of `ensemble`, for the folder of several runs.

    Raises
    ------
    NumeraiSequenceError
        There is no such model, or it cannot be loaded; or there are several, and no `by`.
    """
    several = runs_in(model)
    if bool(several) is not (by is not None):
        found = f"{len(several)} runs" if several else "one model"
        remedy = "add --ensemble rank or gaussian" if several else "leave --ensemble out"
        raise NumeraiSequenceError(f"{model}: found {found}; {remedy}")
    if features is not None and is_parquet(data):
        raise FeatureError(
            f"{data}: found the feature set {features!r}, but a Parquet file has no feature sets; "
            "leave --features out, or write the file as a shard set",
            names=(features,),
        )
    frame = predict(
        model,
        data,
        features=features,
        eras=eras,
        output=output,
        batch_by=batch_by,
        ranked=ranked,
        with_era=by is not None,
        progress=progress,
    )
    if by is not None:
        frame = ensemble(frame, weights, by=by)
    write_predictions(frame, out)
    return len(frame)


def export_run(model: Path, out: Path, *, output: str | None = None, batch_by: str | None) -> str:
    """Write the predict function of a run's model, and say how it runs; see `export_predict`."""
    loaded, run = _load(model)
    if run is None and input_noted(loaded).features is None:
        raise NumeraiSequenceError(
            f"{model}: no run, so its features are not known; expected a folder that "
            "'numerai-sequence train' wrote, or call export_predict(model, path, features=...)"
        )
    fed = input_to_export(loaded, like=run, batch_by=batch_by)
    export_predict(
        loaded,
        out,
        like=run,
        features=fed.features,
        output=output,
        dtype=fed.dtype,
        batch_by=fed.batch_by,
    )
    width = len(fed.features or ())
    if fed.batch_by == "rows":
        return f"{out}: {width:,} features as {fed.dtype}"
    size = width * _LIVE_ROWS * np.dtype(fed.dtype).itemsize / 1e6
    return (
        f"{out}: {width:,} features as {fed.dtype}, whole eras: {_LIVE_ROWS:,} rows take "
        f"{size:,.0f} MB"
    )


def exported_for() -> str:
    """Say which of Numerai's images run what `export_run` writes."""
    return runs_where(active_keras())


def _load(model: Path) -> tuple[Any, Run | None]:
    path, run = find_run(model)
    return load_model(path), run
