"""Targets: turn the columns of a batch into y and sample weights in the form of the model."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from typing import Any

import numpy as np
import numpy.typing as npt

from ..checks import is_of, names_in_order, short
from ..errors import EraError, check_known
from ..format.layout import FEATURES
from ..ordering.eras import spelled_eras
from ..reading.selection import ERA, Selection
from ..reading.shard_set import ShardSet
from .residual import Residual

Values = npt.NDArray[np.float32]
Output = str | tuple[str, ...]
Outputs = Mapping[str | None, Output]
_One = str | Residual
Target = _One | Sequence[_One] | Mapping[str, _One | Sequence[_One]] | None
# Residuals by the name of their column.
Residuals = Mapping[str, Residual]
# A pandas Series has weights of eras, too. It is `Any`, because pandas may not be installed.
SampleWeight = str | Mapping[Any, float] | Callable[[Any, Any], Any] | Any | None

POLICIES = ("error", "drop", "mask")

# The value of a masked target, whose weight is 0.
_MASKED = np.float32(0.5)
UNNAMED = None  # the key of a single output, which has no name


def read_target(target: Target, shards: ShardSet) -> tuple[Outputs, Residuals]:
    """Return the target columns of each output by its name, and the residuals by column.

    Parameters
    ----------
    target : str, Residual, sequence of these, mapping, or None
        See `NumeraiSequence`.

    Raises
    ------
    FeatureError
        A target is unknown, or named twice in one output.
    TypeError
        `target` has another type, or has no order, such as a set.
    """
    if target is None:
        return {}, {}
    outputs: dict[str | None, Output]
    residuals: dict[str, Residual] = {}
    if isinstance(target, Mapping):
        outputs = {
            _read_name(name): _read_output(_named(one, residuals, shards), name)
            for name, one in target.items()
        }
    else:
        outputs = {UNNAMED: _read_output(_named(target, residuals, shards))}
    if not outputs:
        raise ValueError("target: found none, expected a name, a list of names, or None")
    for output in outputs.values():
        known = (*shards.targets, *residuals)
        check_known("target", _targets_of(output), known, str(shards.folder))
    return outputs, residuals


def _named(output: Any, residuals: dict[str, Residual], shards: ShardSet) -> Any:
    """Return an output with column names in place of residuals, which are added to `residuals`."""
    if is_of(output, Residual):
        return _name_residual(output, residuals, shards)
    is_list = isinstance(output, Iterable) and getattr(output, "ndim", 1) == 1
    if not is_list or isinstance(output, (str, bytes, bytearray, Mapping, Set)):
        return output
    parts = list(output)
    if not any(is_of(one, Residual) for one in parts):
        return output if isinstance(output, Sequence) else parts
    return [_named(one, residuals, shards) if is_of(one, Residual) else one for one in parts]


def _name_residual(residual: Residual, residuals: dict[str, Residual], shards: ShardSet) -> str:
    for name, one in residuals.items():
        if one is residual:
            return name
    name, taken = str(residual), {*shards.targets, *residuals}
    numbered = (f"{residual} ({number})" for number in itertools.count(2))
    while name in taken:
        name = next(numbered)
    residuals[name] = residual
    return name


def _read_name(name: Any) -> str:
    if not isinstance(name, str):
        raise TypeError(f"target: found an output {short(name)}, expected the name of an output")
    return str(name)


def _read_output(output: Any, name: str | None = UNNAMED) -> Output:
    where = "" if name is UNNAMED else f" of output {short(name)}"
    names = str(output) if isinstance(output, str) else names_in_order(f"target{where}", output)
    if not names:
        found = "none" if name is UNNAMED else f"none for {short(name)}"
        raise ValueError(f"target: found {found}, expected a name or a list of names")
    return names


def given_target(outputs: Outputs, residuals: Mapping[str, Any]) -> Any:
    """Return the argument of `read_target` again, as a copy.

    Parameters
    ----------
    outputs : dict
        From `read_target`.
    residuals : mapping
        Replacements for the columns of residuals.
    """

    def given(output: Output) -> Any:
        if isinstance(output, str):
            return residuals.get(output, output)
        return tuple(residuals.get(name, name) for name in output)

    return unwrap_single({name: given(one) for name, one in outputs.items()}) if outputs else None


def target_names(outputs: Outputs) -> tuple[str, ...]:
    """Return the target columns of some outputs, each once."""
    return tuple(dict.fromkeys(n for output in outputs.values() for n in _targets_of(output)))


def stored_names(outputs: Outputs, residuals: Residuals, shards: ShardSet) -> tuple[str, ...]:
    """Return the columns of a set from which some outputs are made, each once."""
    plain = [name for name in target_names(outputs) if name not in residuals]
    for one in residuals.values():
        given = one.benchmark if isinstance(one.benchmark, list) else [one.benchmark]
        columns = [name for name in given if isinstance(name, str) and name in shards.targets]
        plain += [one.target, *columns]
    return tuple(dict.fromkeys(plain))


def _targets_of(output: Output) -> tuple[str, ...]:
    if output == FEATURES:
        return ()
    return (output,) if isinstance(output, str) else output


class Targets:
    """The maker of y and sample weights of batches, for any number of threads.

    Parameters
    ----------
    outputs : dict
        From `read_target`.
    weights : Weights or None
        From `read_weights`.
    masks : bool
        Whether a missing target gets weight 0 in its output.
    added : collection of str
        Names of columns that are not in the set. See `Selection`.
    inputs : mapping of str to tuple of str
        Columns of the model's other inputs, by input name.

    Attributes
    ----------
    columns : tuple of str
        Columns that a batch needs. See `Selection.gather`.
    weights : Weights or None
    """

    def __init__(
        self,
        outputs: Outputs,
        weights: Weights | None,
        *,
        masks: bool,
        added: Collection[str] = (),
        inputs: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        self._outputs, self.weights, self._masks = outputs, weights, masks
        self._inputs = dict(inputs or {})
        needed = [*target_names(outputs), *(weights.columns if weights else ())]
        needed += [name for columns in self._inputs.values() for name in columns]
        in_order = sorted(dict.fromkeys(needed), key=lambda name: (name == ERA, name in added))
        self.columns = tuple(in_order)
        self._places = {name: place for place, name in enumerate(self.columns)}

    def __call__(self, values: Values, x: npt.NDArray[Any]) -> Any:
        """Return a batch for Keras: ``x``, ``(x, y)`` or ``(x, y, sample_weight)``.

        With other inputs, x is a dict of them and ``"features"``.

        Parameters
        ----------
        values : float32 array, shape (batch, columns)
        x : array, shape (batch, features)
        """
        if not self._outputs:
            return self._with_inputs(values, x)
        y = {name: self._y(output, values, x) for name, output in self._outputs.items()}
        if not (self._masks or self.weights):
            return self._with_inputs(values, x), unwrap_single(y)
        weights = {name: np.ones(len(x), np.float32) for name in y}
        if self._masks:
            for name in y:
                if y[name] is not x:
                    y[name], weights[name] = _mask(y[name])
        if self.weights:
            given = self.weights(self._column_of(values), unwrap_single(y))
            weights = {name: given * weight for name, weight in weights.items()}
        return self._with_inputs(values, x), unwrap_single(y), unwrap_single(weights)

    def _with_inputs(self, values: Values, x: npt.NDArray[Any]) -> Any:
        if not self._inputs:
            return x
        others = {name: self._columns(values, names) for name, names in self._inputs.items()}
        return {FEATURES: x, **others}

    def _columns(self, values: Values, names: Sequence[str]) -> Values:
        places = [self._places[name] for name in names]
        return np.ascontiguousarray(values[:, places])

    def _y(self, output: Output, values: Values, x: Any) -> Any:
        if output == FEATURES:
            return x
        places = [self._places[name] for name in _targets_of(output)]
        return np.ascontiguousarray(values[:, places[0] if isinstance(output, str) else places])

    def _column_of(self, values: Values) -> Callable[[str], Values]:
        return lambda name: values[:, self._places[name]]


def unwrap_single(outputs: dict[str | None, Any]) -> Any:
    """Return the value of a single output without a name, or else all values by name."""
    return outputs.get(UNNAMED, outputs)


def _read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    view = array.view()
    view.flags.writeable = False
    return view


def _mask(y: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], Values]:
    """Return y with missing values filled, and a weight for each row: 0 if any value is missing."""
    absent = np.isnan(y)
    rows = absent if y.ndim == 1 else absent.any(axis=1)
    weights = (~rows).astype(np.float32)
    return (np.where(absent, _MASKED, y) if rows.any() else y), weights


class Weights:
    """Sample weights of a batch, from a target column."""

    def __init__(self, column: str) -> None:
        self.columns = (column,)

    def given(self) -> SampleWeight:
        """Return the argument from which these weights are made."""
        return self.columns[0]

    def __call__(self, column: Callable[[str], Values], y: Any) -> Values:
        """Return the weights, float32 of shape (batch,), from columns by name and the batch's y."""
        return np.ascontiguousarray(column(self.columns[0]))


class _EraWeights(Weights):
    """Sample weights of a batch, from a weight for each era."""

    def __init__(self, weights: Mapping[Any, Any], selection: Selection) -> None:
        super().__init__(ERA)
        by_era = _by_era(weights, selection.all_eras)
        unknown = [era for era in selection.eras if era not in by_era]
        if unknown:
            raise EraError(
                f"sample_weight: no weight for era {unknown[0]!r}"
                + (f" and {len(unknown) - 1} more" if unknown[1:] else "")
                + _expected_keys(weights, by_era),
                eras=unknown,
            )
        self._eras, self._all_eras = selection.eras, selection.all_eras
        self._weights = np.array([by_era.get(era, 0) for era in self._all_eras], np.float32)
        _check_weights(self._weights, self._weights.shape)

    def given(self) -> SampleWeight:
        all_weights = dict(zip(self._all_eras, self._weights.tolist(), strict=True))
        return {era: all_weights[era] for era in self._eras}

    def __call__(self, column: Callable[[str], Values], y: Any) -> Values:
        weights: Values = self._weights[column(ERA).astype(np.int64)]
        return weights


def _by_era(weights: Mapping[Any, Any], known: Sequence[str]) -> dict[str, float]:
    """Return the weights by the set's names of eras, without weights of unknown eras."""
    try:
        found = spelled_eras(list(weights), known)
    except (EraError, TypeError) as error:
        data = {"eras": error.eras} if isinstance(error, EraError) else {}
        raise type(error)(f"sample_weight: {str(error).removeprefix('eras: ')}", **data) from error
    pairs = zip(found, weights.values(), strict=True)
    return {era: _as_weight(weight) for eras, weight in pairs for era in eras}


def _as_weight(weight: Any) -> float:
    weight = weight.as_py() if hasattr(weight, "as_py") else weight  # pyarrow's
    if isinstance(weight, (str, bytes)):
        raise TypeError(f"sample_weight: found {short(weight)}, expected a number for each era")
    try:
        return float(weight)
    except (TypeError, ValueError) as error:  # as None, and pandas's NA
        raise ValueError(
            f"sample_weight: found {short(weight)}, expected a finite number"
        ) from error


def _expected_keys(weights: Mapping[Any, Any], by_era: Mapping[str, float]) -> str:
    if by_era or not weights:
        return ", expected one for each selected era"
    return (
        f"; found a weight of {short(next(iter(weights)))}, which is not an era; expected one for "
        "each era. For a weight for each row, use a target column of the set, or a function"
    )


def read_weights_by_era(sample_weight: Any) -> dict[Any, Any] | None:
    """Return a copy of a mapping or Series of weights by era, or None for other types.

    Raises
    ------
    ValueError
        The Series has pandas's default index, or an era twice.
    """
    if isinstance(sample_weight, Mapping):
        return dict(sample_weight)
    index = getattr(sample_weight, "index", None)
    if not hasattr(sample_weight, "to_frame") or index is None:
        return None
    if len(index) and list(index) == list(range(len(index))):
        raise ValueError(
            f"sample_weight: found a Series with the index 0 to {len(index) - 1}, expected "
            "an index of eras, such as pandas.Series(1.0, index=sequence.eras)"
        )
    if not index.is_unique:
        twice = index[index.duplicated()][0]
        raise ValueError(f"sample_weight: found era {twice!r} twice in the index, expected it once")
    return dict(sample_weight.items())


class _ComputedWeights(Weights):
    """Sample weights of a batch, from a function of the eras and y."""

    def __init__(self, function: Callable[[Any, Any], Any], selection: Selection) -> None:
        super().__init__(ERA)
        self._function = function
        self._eras = np.array(selection.all_eras, object)

    def given(self) -> SampleWeight:
        return self._function

    def __call__(self, column: Callable[[str], Values], y: Any) -> Values:
        eras = _read_only(self._eras[column(ERA).astype(np.int64)])
        # Read-only, because a function that writes into y would change the training.
        seen = _read_only(y) if not isinstance(y, dict) else {n: _read_only(y[n]) for n in y}
        return _check_weights(np.asarray(self._function(eras, seen), np.float32), eras.shape)


def read_weights(sample_weight: SampleWeight, selection: Selection) -> Weights | None:
    """Return the `Weights` of an argument ``sample_weight``.

    Raises
    ------
    FeatureError, EraError
        There is no such column, or a row or an era has no weight.
    """
    if sample_weight is None:
        return None
    if isinstance(sample_weight, str):
        shards = selection.shards
        check_known("sample_weight column", (sample_weight,), shards.targets, str(shards.folder))
        check_complete(selection, (sample_weight,), "choose eras in which every row has a weight")
        return Weights(sample_weight)
    by_era = read_weights_by_era(sample_weight)
    if by_era is not None:
        return _EraWeights(by_era, selection)
    if callable(sample_weight):
        return _ComputedWeights(sample_weight, selection)
    raise TypeError(
        f"sample_weight: found {short(sample_weight)}, expected the name of a column, a weight "
        "for each era, or a function of eras and y"
    )


def _check_weights(weights: Values, shape: tuple[int, ...]) -> Values:
    if weights.shape != shape:
        raise ValueError(f"sample_weight: found shape {weights.shape}, expected {shape}")
    if not np.isfinite(weights).all():
        raise ValueError("sample_weight: found NaN or infinity, expected finite numbers")
    return weights


def check_complete(selection: Selection, names: Sequence[str], remedy: str) -> None:
    """Raise an `EraError` if a selected row has no value in one of some target columns.

    The error names the column, the number of rows, and the eras.
    """
    for name in names:
        missing = selection.missing(name)
        if missing:
            eras = list(missing)
            raise EraError(
                f"{selection.shards.folder}: {name!r} is missing in {sum(missing.values()):,} of "
                f"{selection.rows:,} rows ({shown_eras(eras)}); {remedy}",
                eras=eras,
            )


def shown_eras(eras: Sequence[str]) -> str:
    """Return eras in the form of an error message."""
    return eras[0] if len(eras) == 1 else f"{len(eras)} eras, {eras[0]} to {eras[-1]}"
