"""Serving: a saved model, and what its run knows of it, become predictions and an upload."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import FeatureError, NumeraiSequenceError
from ..feeding.keras_compat import active_keras
from ..feeding.model_input import input_noted
from ..predicting.ensemble_members import Member, union_of
from ..predicting.ensembles import ensemble
from ..predicting.export import batch_by_of, export_members, members_to_export, runs_where
from ..predicting.named_models import name_models
from ..predicting.neutralizing import neutralize as take_out
from ..predicting.opened_data import is_parquet
from ..predicting.predictions import predict
from ..predicting.submission import write_predictions
from ..predicting.upload_finish import Finish, read_finish
from .run_folder import runs_in

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
    neutralize: str | None = None,
    proportion: float = 1.0,
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
    neutralize : str, optional
        The name of a feature set, or "all"; predictions are then ranked.
    proportion : float
        As of `neutralize`.

    Raises
    ------
    NumeraiSequenceError
        There is no such model, or it cannot be loaded; or there are several, and no `by`.
    """
    _check_ensemble(model, by, is_needed=True)
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
        with_era=by is not None or neutralize is not None,
        progress=progress,
    )
    by_id = frame.pop("era") if "era" in frame else None
    if by is not None:
        frame = ensemble(frame, weights, by=by, eras=by_id)
    if neutralize is not None:
        names = None if neutralize == "all" else neutralize
        frame = take_out(frame, data, features=names, proportion=proportion, progress=progress)
        frame = ensemble(frame, eras=by_id)
    write_predictions(frame, out)
    return len(frame)


def export_run(
    model: Path,
    out: Path,
    *,
    output: str | None = None,
    batch_by: str | None,
    by: str | None = None,
    weights: list[float] | None = None,
    neutralize: str | None = None,
    proportion: float = 1.0,
    features_json: str | None = None,
) -> str:
    """Write the predict function of a run's model, or of several runs, and say how it runs.

    Parameters
    ----------
    model : path
        The folder of a run, or of several; or the file of a model.
    out, output, batch_by, weights, proportion, features_json
        As of `export_predict`.
    by : optional
        As its ``ensemble``.
    neutralize : str, optional
        The name of a feature set; "all", without `features_json`, is what the models take.
    """
    _check_ensemble(model, by, is_needed=False)
    models = name_models(model)
    if any(one.like is None and input_noted(one.model).features is None for one in models):
        raise NumeraiSequenceError(
            f"{model}: no run, so its features are not known; expected a folder that "
            "'numerai-sequence train' wrote, or call export_predict(model, path, features=...)"
        )
    members = members_to_export(models, output=output, batch_by=batch_by)
    finish = read_finish(
        ranked=True,
        ensemble=by,
        weights=weights,
        neutralize=True if neutralize == "all" and features_json is None else neutralize,
        proportion=proportion,
        features=union_of(members),
        like=None,
        features_json=features_json,
    )
    export_members(members, out, finish)
    return f"{out}: {_describe(members, finish)}"


def _describe(members: Sequence[Member], finish: Finish) -> str:
    """Say what a function does with how many features."""
    width, dtypes = len(union_of(members)), [str(member.known.dtype) for member in members]
    several = f"{len(members)} models of " if len(members) > 1 else ""
    said = f"{several}{width:,} features as {' and '.join(dict.fromkeys(dtypes))}"
    if batch_by_of(members) == "era":
        size = width * _LIVE_ROWS * max(np.dtype(dtype).itemsize for dtype in dtypes) / 1e6
        said += f", whole eras: {_LIVE_ROWS:,} rows take {size:,.0f} MB"
    if finish.neutral:
        said += f", neutralized to {len(finish.neutral):,} features by {finish.proportion:g}"
    return said


def _check_ensemble(model: Path, by: str | None, *, is_needed: bool) -> None:
    several = runs_in(model)
    if by is not None and not several:
        raise NumeraiSequenceError(f"{model}: found one model; leave --ensemble out")
    if by is None and several and is_needed:
        found = f"found {len(several)} runs"
        raise NumeraiSequenceError(f"{model}: {found}; add --ensemble rank or gaussian")


def exported_for() -> str:
    """Say which of Numerai's images run what `export_run` writes."""
    return runs_where(active_keras())
