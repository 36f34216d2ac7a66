"""Serving: a saved model, and what its run knows of it, become predictions and an upload."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import NumeraiSequenceError
from ..feeding.keras_compat import active_keras
from ..predicting.export import export_predict
from ..predicting.predictions import predict
from ..predicting.submission import write_predictions
from .runs import Run, find_run


def predict_file(
    model: Path,
    data: str,
    out: Path,
    *,
    features: str | None,
    eras: str | None,
    ranked: bool,
    progress: bool,
) -> int:
    """Write a model's predictions of a shard set or a Parquet file; return how many.

    Parameters
    ----------
    model : path
        The folder of a run, or the file of a model.
    data : path
        As of `predict`.
    out : path
        As of `write_predictions`.
    features : str, optional
        The name of a feature set. None for those of the run, or for all, where there is no run.
    eras : str, optional
        Of a shard set; None for all.

    Raises
    ------
    NumeraiSequenceError
        There is no such model, or it cannot be loaded.
    """
    loaded, run = _load(model)
    chosen: dict[str, Any] = {"features": features}
    if run is not None:
        chosen = {"features": features or run.features, "dtype": run.dtype, "output": run.output}
    frame = predict(loaded, data, eras=eras, ranked=ranked, progress=progress, **chosen)
    write_predictions(frame, out)
    return len(frame)


def export_run(model: Path, out: Path) -> None:
    """Write the predict function of a run's model; see `export_predict`."""
    loaded, run = _load(model)
    if run is None:
        raise NumeraiSequenceError(
            f"{model}: no run, so its features are not known; expected a folder that "
            "'numerai-sequence train' wrote, or call export_predict(model, path, features=...)"
        )
    export_predict(loaded, out, features=run.features, dtype=run.dtype, output=run.output)


def _load(model: Path) -> tuple[Any, Run | None]:
    path, run = find_run(model)
    try:
        # Its loss is of no matter, and may be one that Keras does not know.
        return active_keras().models.load_model(str(path), compile=False), run
    except (OSError, ValueError, TypeError) as error:
        raise NumeraiSequenceError(
            f"{path}: cannot be loaded ({' '.join(str(error).split())[:200]}); expected a model "
            "that this version of Keras has saved"
        ) from error
