"""Run predictions: write the predictions of a saved model or run, or a function to upload."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import FeatureError, NumeraiSequenceError
from ..feeding.keras_compat import active_keras
from ..feeding.model_input import input_noted
from ..predicting.batch_members import Member, union_of
from ..predicting.data_argument import is_parquet
from ..predicting.ensembles import ensemble
from ..predicting.export import batch_by_of, export_members, members_to_export, runs_where
from ..predicting.named_models import name_models
from ..predicting.neutralizing import neutralize as take_out
from ..predicting.predictions import predict
from ..predicting.submission import write_predictions
from ..predicting.upload_postprocessing import Finish, read_finish
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
    """Write the predictions of a model or an ensemble, and return the number of rows.

    Parameters
    ----------
    model : path
        Folder of a run, or of several; or the file of a model.
    data : path
        Shard set or Parquet file. See `predict`.
    out : path
        File of the predictions. See `write_predictions`.
    features : str, optional
        Name of a feature set. None for the features of the training; or for all, if these are not
        known.
    eras : str, optional
        Eras of a shard set. None for all.
    output : str, optional
        Output of the model that is the prediction. None for the run's output, or the only one.
    batch_by : {"rows", "era"}, optional
        Unit of the batches. See `predict`.
    by, weights : optional
        Options of an ensemble of several runs. See `ensemble`.
    neutralize : str, optional
        Name of a feature set to neutralize to, or "all". The predictions are then ranked.
    proportion : float
        Share to neutralize. See `neutralize`.

    Raises
    ------
    NumeraiSequenceError
        There is no such model, or it cannot be loaded; or there are several, without `by`.
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
    """Write the predict function of one run or several, and return a line that describes it.

    Parameters
    ----------
    model : path
        Folder of a run, or of several; or the file of a model.
    out, output, batch_by, weights, proportion, features_json
        See `export_predict`.
    by : optional
        The argument ``ensemble`` of `export_predict`.
    neutralize : str, optional
        Name of a feature set. "all", without `features_json`, is the features of the models.
    """
    _check_ensemble(model, by, is_needed=False)
    models = name_models(model)
    if any(one.like is None and input_noted(one.model).features is None for one in models):
        raise NumeraiSequenceError(
            f"{model}: found no run, so its features are not known; give a folder that "
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
    """Return a description of an exported function."""
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
    """Return which of Numerai's images run the function that `export_run` writes."""
    return runs_where(active_keras())
