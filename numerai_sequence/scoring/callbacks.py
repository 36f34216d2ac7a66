"""Callbacks: after each epoch of fit, score the model era by era, as Numerai does."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..feeding import keras_compat
from ..feeding.sequence import NumeraiSequence
from ..reading.shards import PathLike
from .exposure import Exposure
from .forward import most_rows, predict_rows
from .picture import draw_scores
from .scoring import load_scorer, score_eras, summarize, write_table

if TYPE_CHECKING:
    import pandas as pd

# What a callback is depends on which Keras is installed; see keras_compat.
_BASES: Any = keras_compat.callback_bases()


class EraScores(*_BASES):  # type: ignore[misc]
    """Predicts the validation rows after each epoch, and logs Numerai's scores of their eras.

    The logs are those that ``fit`` hands to all callbacks, so `EarlyStopping` and `ModelCheckpoint`
    can monitor them where they come after this one in the list of callbacks, and ``fit`` returns
    them in its history:

    - ``val_corr_mean``, ``val_corr_std``, ``val_corr_sharpe`` and ``val_corr_max_drawdown`` of
      `numerai_corr` over the eras,
    - the same of ``val_mmc_...`` and ``val_bmc_<name>_...`` where there are other models,
    - ``val_exposure_mean`` and ``val_exposure_max`` over the eras, of each era's largest
      correlation with a single feature, with `exposure`.

    Parameters
    ----------
    validation : NumeraiSequence
        Its rows and features. They are read in the order of the files, in batches of 32 MB.
    target : str, optional
        The target column that predictions are compared with; that of `validation`, if it is one.
        Rows without it are not scored.
    output : str, optional
        Which output of a model of several.
    meta_model : str or pandas.Series, optional
        Numerai's meta model: a column of the shard set, or values indexed by ``id``. Rows that
        have none do not count.
    benchmarks : str, list of str, or pandas.DataFrame, optional
        Other models, as `meta_model`; the frame is indexed by ``id``.
    exposure : bool
        Score the exposure to features, too.
    csv, png : path, optional
        Where to write the table and the picture of the newest scores.
    progress : bool
        Show a progress bar on stderr.

    Attributes
    ----------
    table : pandas.DataFrame or None
        The newest scores, indexed by ``era``; see `scoring.score_eras`.

    Raises
    ------
    ValueError
        `target` has to be named.
    NumeraiSequenceError
        numerai-tools is not installed; or, after an epoch, a prediction is NaN.
    """

    def __init__(
        self,
        validation: NumeraiSequence,
        *,
        target: str | None = None,
        output: str | None = None,
        meta_model: str | pd.Series | None = None,
        benchmarks: str | Iterable[str] | pd.DataFrame | None = None,
        exposure: bool = False,
        csv: PathLike | None = None,
        png: PathLike | None = None,
        progress: bool = False,
    ) -> None:
        super().__init__()
        load_scorer()  # rather miss it now than after an epoch
        self.validation = validation
        self._sequence = validation.in_order(most_rows(len(validation.features)))
        self._eras = self._sequence.column("era")
        self._target = self._column(_target_of(validation, target))
        meta_models = {} if meta_model is None else {"meta_model": meta_model}
        self._meta_model = self._aligned(meta_models).get("meta_model")
        self._benchmarks = self._aligned(dict(_named(benchmarks)))
        self._output, self._exposure, self._progress = output, exposure, progress
        self._csv = None if csv is None else Path(csv)
        self._png = None if png is None else Path(png)
        self.table: pd.DataFrame | None = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Score the model, and add the scores to the logs."""
        table = self.score(self.model)
        if logs is not None:
            logs.update(log_scores(table))
        if self._csv:
            write_table(table, self._csv)
        if self._png:
            draw_scores(table, self._png, title=f"Validation after epoch {epoch + 1}")

    def score(self, model: Any) -> pd.DataFrame:
        """Score a model now.

        Returns
        -------
        pandas.DataFrame
            Indexed by ``era``: ``corr``; ``mmc`` and ``bmc_<name>`` where there are other models;
            ``exposure`` where it is asked for.
        """
        exposures = None
        if self._exposure:
            exposures = Exposure(len(self._sequence.features), self._sequence.all_eras)
        predictions = self._predict(model, exposures)
        self.table = score_eras(
            self._eras,
            predictions,
            self._target,
            meta_model=self._meta_model,
            benchmarks=self._benchmarks,
        )
        if exposures:
            largest = exposures.max()
            self.table["exposure"] = [largest[era] for era in self.table.index]
        return self.table

    def _predict(self, model: Any, exposures: Exposure | None) -> npt.NDArray[np.float32]:
        def watch(start: int, x: npt.NDArray[Any], values: npt.NDArray[np.float32]) -> None:
            if exposures:
                codes = self._sequence.era_codes[start : start + len(x)]
                exposures.add(codes, x, values[:, 0])

        names, values = predict_rows(
            model, self._sequence, output=self._output, progress=self._progress, watch=watch
        )
        if len(names) != 1:
            raise ValueError(
                f"model: {len(names)} values a row, {', '.join(names[:5])}; expected one; choose "
                "it with output="
            )
        return values[:, 0]

    def _column(self, name: str) -> npt.NDArray[np.float32]:
        column: npt.NDArray[np.float32] = self._sequence.column(name).to_numpy()
        return column

    def _aligned(self, models: dict[str, str | pd.Series]) -> dict[str, npt.NDArray[np.float32]]:
        """Return other models' values of the rows, NaN where they have none."""
        is_given = any(not isinstance(model, str) for model in models.values())
        ids = self._sequence.column("id").to_pandas() if is_given else None
        return {
            name: self._column(model) if isinstance(model, str) else _values_of(model, ids)
            for name, model in models.items()
        }


def _values_of(model: pd.Series, ids: pd.Series) -> npt.NDArray[np.float32]:
    values: npt.NDArray[np.float32] = model.reindex(ids).to_numpy(np.float32)
    if np.isnan(values).all():
        raise ValueError(
            f"{model.name!r}: has a value for none of {len(ids):,} validation rows, such as "
            f"{ids.iloc[0]!r}; expected a Series or frame that is indexed by id"
        )
    return values


def log_scores(table: pd.DataFrame) -> dict[str, float]:
    """Return the logs of a table of scores, by name; see `EraScores`."""
    logs = {}
    for name in table.columns:
        if name == "exposure":
            logs["val_exposure_mean"] = float(table[name].mean())
            logs["val_exposure_max"] = float(table[name].max())
            continue
        for statistic, value in vars(summarize(table[name])).items():
            logs[f"val_{name}_{statistic}"] = value
    return logs


def _target_of(validation: NumeraiSequence, target: str | None) -> str:
    name = validation.target if target is None else target
    if not isinstance(name, str):
        raise ValueError(
            f"target: found {name!r}, expected the name of the target column to score with, "
            "target='target'"
        )
    return name


def _named(benchmarks: Any) -> Iterable[tuple[str, Any]]:
    if benchmarks is None:
        return []
    if isinstance(benchmarks, str):
        return [(benchmarks, benchmarks)]
    if hasattr(benchmarks, "items"):  # a frame, or a dict of columns
        return list(benchmarks.items())
    return [(name, name) for name in benchmarks]
