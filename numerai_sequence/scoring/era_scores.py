"""EraScores: a callback that scores the model by era after each epoch."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..checks import is_of, short
from ..feeding import keras_compat
from ..feeding.model_input import ModelInput, check_scale, input_like, input_noted, joined
from ..feeding.models_behind_unpack import core_of, takes_packed
from ..feeding.sequence import NumeraiSequence
from ..reading.join_by_id import several
from ..reading.shard_set import PathLike
from .feature_exposure import Exposure
from .forward_pass import features_of, mixes_rows, predict_rows, x_of
from .model_outputs import check_takes
from .neutral_correlation import neutral_correlations, read_neutral
from .score_kinds import CORR, EXPOSURE, FNC, load_scorer
from .score_picture import draw_scores
from .scored_rows import ScoredRows, target_of
from .scores import logged_statistics, score_eras, write_table

if TYPE_CHECKING:
    import pandas as pd

# The base class of a callback depends on the installed Keras. See keras_compat.
_BASES: Any = keras_compat.callback_bases()


class EraScores(*_BASES):  # type: ignore[misc]
    """A callback that scores the model by era after each epoch, with Numerai's own scores.

    It predicts the validation rows, and adds statistics of the scores to the logs of ``fit``.
    `EarlyStopping` and `ModelCheckpoint` can monitor these statistics. Put these callbacks after
    `EraScores` in the list. The history that ``fit`` returns has the same values:

    - ``val_corr_mean``, ``val_corr_std``, ``val_corr_sharpe`` and ``val_corr_max_drawdown``:
      statistics of `numerai_corr` over the eras.
    - ``val_mmc_mean`` or ``val_bmc_<name>_mean`` and so on, with `meta_model` or `benchmarks`.
    - ``val_exposure_mean`` and ``val_exposure_max``, with `exposure`: statistics of each era's
      largest correlation with a single feature.
    - ``val_fnc_mean`` and so on, with `neutral`: statistics of the feature-neutral correlation.

    Parameters
    ----------
    validation : NumeraiSequence
        Sequence with the rows to score. By default, the rows are predicted in the order of the
        files, in batches of 32 MB. In three cases, each batch has whole eras with all their rows:
        (1) `validation` has ``batch_by="era"``; (2) the model was trained on whole eras; (3) a
        prediction depends on the other rows of its batch.
    like : NumeraiSequence or Run, optional
        Training sequence or run of the model. `validation` must have the same features.
    target : str, optional
        Target column to score with. None means the target of `validation`. If that is a `Residual`,
        None means the target of the `Residual`. Rows without this target are not scored.
    output : str, optional
        Name of the output to score, if the model has several.
    meta_model : str, path, pandas.Series, pandas.DataFrame, or table, optional
        Numerai's meta model: the name of a column of the shard set, the path of
        ``meta_model.parquet``, or a table of pandas, polars or pyarrow. A table has its ids in the
        index or in the column ``id``. The predictions are in the column ``numerai_meta_model``, or
        in the only column of numbers. Rows without a value are left out. An era without values gets
        the score NaN, and one warning names all such eras.
    benchmarks : same types as meta_model, or a list or dict of these, optional
        Other models to compare with, such as ``validation_benchmark_models.parquet`` or names of
        columns of the set. Each column of numbers is one model. Features and targets are ignored.
        Files in a list may have different rows of the same models. The keys of a dict are the names
        of the models.
    exposure : bool
        Whether to score the exposure to features too.
    neutral : str, list of str, or bool, optional
        Features for the feature-neutral correlation, ``fnc``: the name of a feature set of the
        shard set, a list of its features, or True for all features. The predictions are neutralized
        to these features and scored again. The features are read one era at a time.
    prefix : str
        Text after ``val_`` in the names of the logs. If one ``fit`` has two `EraScores`, give them
        different prefixes: ``prefix="recent_"`` logs ``val_recent_corr_mean``. A ``_`` is added at
        the end if it is missing.
    csv, png : path, optional
        Files for the table and the picture of the newest scores. Two `EraScores` need different
        files.
    progress : bool
        Whether to show a progress bar on stderr.

    Attributes
    ----------
    table : pandas.DataFrame or None
        Newest scores, indexed by ``era``. `EraScores.score` describes the columns.

    Raises
    ------
    TypeError
        `validation` is not a sequence.
    FeatureError, ValueError
        `target` is missing or unknown. The model was trained on other features than `validation`
        has, or on another scale of features. `meta_model` or `benchmarks` have an id twice, an
        infinite value, or no id of the set. Two `EraScores` of one ``fit`` have the same `prefix`
        or file.
    SourceError
        A file of `meta_model` or `benchmarks` cannot be read.
    NumeraiSequenceError
        numerai-tools is not installed, or a prediction is NaN after an epoch.
    """

    def __init__(
        self,
        validation: NumeraiSequence,
        *,
        like: Any = None,
        target: str | None = None,
        output: str | None = None,
        meta_model: PathLike | pd.DataFrame | None = None,
        benchmarks: PathLike | Iterable[Any] | pd.DataFrame | None = None,
        exposure: bool = False,
        neutral: str | Sequence[str] | bool | None = None,
        prefix: str = "",
        csv: PathLike | None = None,
        png: PathLike | None = None,
        progress: bool = False,
    ) -> None:
        super().__init__()
        load_scorer()  # fail now if it is missing, and not after an epoch
        self.validation = _check_sequence(validation)
        joined(input_like(like), replace(input_like(validation), batch_by=None), "validation")
        self._compared: dict[str, Any] = {
            "target": target_of(validation, target),
            "meta_model": several(meta_model),
            "benchmarks": several(benchmarks),
        }
        is_whole = "era" in (input_like(validation).batch_by, input_like(like).batch_by)
        self._batch_by = "era" if is_whole else "rows"
        self._prefix = read_prefix(prefix)
        self._rows = self._scored_rows(self._batch_by)
        if lacking := self._rows.without_values():
            warnings.warn(lacking, stacklevel=2)
        self._neutral = read_neutral(neutral, validation.shards)
        self._output, self._exposure, self._progress = output, exposure, progress
        self._csv = None if csv is None else Path(csv)
        self._png = None if png is None else Path(png)
        if self._csv and self._png and self._csv.resolve() == self._png.resolve():
            raise ValueError(f"csv, png: found {self._csv} for both, expected two different files")
        self.table: pd.DataFrame | None = None

    def _scored_rows(self, batch_by: str) -> ScoredRows:
        return ScoredRows(self.validation, batch_by=batch_by, **self._compared)

    def on_train_begin(self, logs: Any = None) -> None:
        """Check that the validation feeds the same features as the training.

        Check too that no other `EraScores` uses the same names of logs or the same file. All
        callbacks of one ``fit`` share `logs`.
        """
        self._check_input(self.model)
        if logs is not None:
            name = f"val_{self._prefix}{CORR.name}"
            if name in logs:
                raise ValueError(
                    f"callbacks: found two EraScores that log {name}_mean, expected different "
                    "names; give one of them a prefix=, such as prefix='recent_'"
                )
            logs[name] = True
            self._claim_files(logs)
        if self._exposure and not self._feeds_rows:  # fail now, and not after an epoch
            one_pass = self._rows.sequence.in_floats().one_pass()
            x = features_of(x_of(one_pass[0]), self.validation)
            _rows_of_x(x, len(one_pass.rows(0)))

    def _claim_files(self, logs: dict[str, Any]) -> None:
        for option, path in ("csv", self._csv), ("png", self._png):
            if path is None:
                continue
            name = f"val_file_{path.resolve()}"
            if name in logs:
                raise ValueError(
                    f"callbacks: found two EraScores that write {path}, expected a file for each; "
                    f"give one of them another {option}="
                )
            logs[name] = True

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Score the model, and add the scores to the logs."""
        table = self.score(self.model)
        if logs is not None:
            logs.update(log_scores(table, prefix=self._prefix))
        if self._csv:
            write_table(table, self._csv)
        if self._png:
            draw_scores(table, self._png, title=f"Validation after epoch {epoch + 1}")

    def score(self, model: Any) -> pd.DataFrame:
        """Score a model without ``fit``.

        Returns
        -------
        pandas.DataFrame
            Scores, float64, indexed by ``era``. The table always has the column ``corr``. It has
            ``mmc`` with `meta_model`, ``bmc_<name>`` with `benchmarks`, ``exposure`` with
            `exposure`, and ``fnc`` with `neutral`.
        """
        self._choose_batches(model)
        rows, exposures = self._rows, None
        if self._exposure:
            exposures = Exposure(len(rows.sequence.features), rows.sequence.all_eras)
        predictions = self._predict(model, exposures)
        self.table = score_eras(
            rows.eras,
            predictions,
            rows.target,
            meta_model=rows.meta_model,
            benchmarks=rows.benchmarks,
        )
        if exposures:
            largest = exposures.max()
            self.table[EXPOSURE.name] = [largest[era] for era in self.table.index]
        if self._neutral:
            self.table[FNC.name] = neutral_correlations(
                rows.sequence,
                predictions[:, None],
                rows.target,
                features=self._neutral,
                progress=self._progress,
            )[0]
        return self.table

    def _check_input(self, model: Any) -> ModelInput:
        """Return the known input of the model, and check that the validation feeds the same."""
        found = replace(input_like(self.validation), batch_by=None)
        known = joined(input_noted(model), found, "validation")
        if self._feeds_rows:
            model = core_of(model)
            check_scale(model, found.dtype, "validation")
            check_takes(
                model,
                len(self.validation.features),
                self.validation.inputs,
                "validation",
                remedy="make the validation sequence with the features of the training",
            )
        return known

    def _choose_batches(self, model: Any) -> None:
        """Predict whole eras if the model was trained on them, or needs them."""
        known = self._check_input(model)
        if self._batch_by == "rows" and (
            known.batch_by == "era" or mixes_rows(core_of(model), self.validation.in_floats())
        ):
            self._batch_by, self._rows = "era", self._scored_rows("era")

    @property
    def _feeds_rows(self) -> bool:
        # A user's class with its own `__getitem__` may feed anything.
        return self.validation.made_by is None

    def _predict(self, model: Any, exposures: Exposure | None) -> npt.NDArray[np.float32]:
        sequence = self._rows.sequence
        if exposures or not takes_packed(model, sequence):
            model, sequence = core_of(model), sequence.in_floats()

        def watch(rows: npt.NDArray[np.int64], x: Any, values: npt.NDArray[np.float32]) -> None:
            if exposures:
                features = _rows_of_x(features_of(x, sequence), len(rows))
                exposures.add(sequence.era_codes[rows], features, values[:, 0])

        names, values = predict_rows(
            model, sequence, output=self._output, progress=self._progress, watch=watch
        )
        if len(names) != 1:
            raise ValueError(
                f"model: found {len(names)} values for each row, {', '.join(names[:5])}, expected "
                "one; choose it with output="
            )
        return values[:, 0]


def _check_sequence(validation: Any) -> NumeraiSequence:
    if not is_of(validation, NumeraiSequence):
        raise TypeError(
            f"validation: found {type(validation).__name__}, expected a NumeraiSequence, such as "
            "NumeraiSequence(shards, eras=..., shuffle=False)"
        )
    checked: NumeraiSequence = validation
    return checked


def _rows_of_x(x: Any, rows: int) -> npt.NDArray[Any]:
    """Return x with one entry for each row. A user's class may feed an era as a batch of one."""
    shape = getattr(x, "shape", ())
    if shape[:1] != (rows,) and shape[:2] != (1, rows):
        raise ValueError(
            f"exposure: found x of {'shape ' + str(shape) if shape else 'a ' + type(x).__name__}, "
            f"expected one array of {rows} rows; leave out exposure="
        )
    flat: npt.NDArray[Any] = x.reshape(rows, -1)
    return flat


def read_prefix(prefix: Any) -> str:
    """Return the text after ``val_`` in the names of logs: empty, or with ``_`` at its end."""
    if not isinstance(prefix, str):
        raise TypeError(f"prefix: found {short(prefix)}, expected a str such as 'recent_'")
    return f"{prefix}_" if prefix and not prefix.endswith("_") else str(prefix)


def log_scores(table: pd.DataFrame, *, prefix: str = "") -> dict[str, float]:
    """Return the logs of a table of scores, by name. See `EraScores`."""
    columns = (logged_statistics(name, table[name]) for name in table.columns)
    return {f"val_{prefix}{name}": value for logs in columns for name, value in logs.items()}
