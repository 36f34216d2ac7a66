"""Model input: the description of a model's training input, which is saved with the model.

A model does not show the order of its features, their scale, or whether batches were whole eras.
With another input it still runs, but predicts worse. So ``fit`` attaches a description to the
model, a saved model has it, and later calls compare their input with it. See `keras_compat`.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..batching.inputs import Inputs, check_same_inputs
from ..checks import as_dict, as_names, as_text, is_of, short
from ..errors import FeatureError, NumeraiSequenceError
from ..format.encoding import PACKED
from ..format.layout import FEATURES
from ..ordering.batch_units import BATCH_BY
from .models_behind_unpack import NOTE, core_of, unpack_of

_FILE = "numerai_sequence.json"


@dataclass(frozen=True)
class ModelInput:
    """The input of a model. None for unknown attributes.

    Attributes
    ----------
    features : tuple of str, optional
        Columns of x, in order.
    dtype : str, optional
        Type of x. See `NumeraiSequence`.
    batch_by : str, optional
        Unit of the batches: "rows", or "era" for whole eras. One of `PREDICT_BY`.
    made_by : str, optional
        Class of the sequence if it makes its own batches. x may then be anything.
    outputs : tuple of str, optional
        Names in ``target=``, in order, for outputs that have no names in the model.
    inputs : mapping of str to tuple of str, optional
        Columns of each input besides the features. None if there are no others.
    """

    features: tuple[str, ...] | None = None
    dtype: str | None = None
    batch_by: str | None = None
    made_by: str | None = None
    outputs: tuple[str, ...] | None = None
    inputs: Inputs | None = None


def input_like(like: Any) -> ModelInput:
    """Return the input of a sequence, or of the model of a run.

    Raises
    ------
    TypeError
        `like` is neither a sequence nor a run.
    """
    if like is None:
        return ModelInput()
    try:
        made_by, target = getattr(like, "made_by", None), getattr(like, "target", None)
        outputs = tuple(target) if isinstance(target, Mapping) else None
        inputs = getattr(like, "inputs", None) or None  # a run has no others
        # An `Unpack` layer turns packed rows into floats.
        dtype = "float32" if like.dtype == PACKED else like.dtype
        run_by = BATCH_BY[like.batch_by].predict_by
        return ModelInput(tuple(like.features), dtype, run_by, made_by, outputs, inputs)
    except AttributeError:
        raise TypeError(
            f"like: found {type(like).__name__}, expected the NumeraiSequence of the model's "
            "training, or a run from read_run"
        ) from None


def note_input(model: Any, sequence: Any) -> None:
    """Attach the input of a training to a model, and to the model behind an `Unpack` layer."""
    models = [model]
    if unpack_of(model) is not None:
        with suppress(NumeraiSequenceError):  # there is no model behind it
            models.append(core_of(model))
    for one in models:
        setattr(one, NOTE, input_like(sequence))


def input_noted(model: Any) -> ModelInput:
    """Return the input that is attached to a model."""
    noted = getattr(model, NOTE, None)
    return noted if is_of(noted, ModelInput) else ModelInput()


def check_inputs(model: Any, method: str, sequences: Iterable[Any], trained: Any) -> None:
    """Check that sequences have the input of a model's training.

    Parameters
    ----------
    model : Keras model
    method : {"fit", "evaluate", "predict"}
        Method of the model that gets the sequences.
    sequences : iterable of NumeraiSequence
    trained : NumeraiSequence or None
        Sequence for training, in ``fit``.

    Raises
    ------
    FeatureError
        See `joined`.

    Warns
    -----
    UserWarning
        An earlier training of the model had another input; or the model was trained on whole eras,
        and a sequence has batches of rows.
    """
    known = input_noted(model)
    if trained is not None:
        try:
            joined(known, input_like(trained), method)
        except FeatureError as error:
            warnings.warn(f"{error}. This fit continues with the new sequence.", stacklevel=4)
        known = input_like(trained)
    for sequence in sequences:
        check_packed(model, sequence, method)
        found = input_like(sequence)
        joined(known, found, method)
        if known.batch_by == "era" and found.batch_by != "era":
            warnings.warn(
                f"{method}: found a sequence with batch_by={sequence.batch_by!r}, but the model "
                "was trained on whole eras; a loss or a model that uses a whole era has other "
                "values on batches of rows; use batch_by='era'",
                stacklevel=4,
            )


def check_packed(model: Any, sequence: Any, what: str) -> None:
    """Check that a model gets packed rows if it begins with an `Unpack` layer, and only then.

    Raises
    ------
    FeatureError, NumeraiSequenceError, ValueError
        The model begins with the layer, and the sequence has no packed rows, or rows that do not
        fit the layer.

    Warns
    -----
    UserWarning
        The sequence has packed rows, and the model has no such layer.
    """
    layer, is_packed = unpack_of(model), sequence.dtype == PACKED
    if layer is not None and is_packed:
        layer.check(sequence)
    elif sequence.made_by is not None:  # its batches may be anything
        return
    elif is_packed:
        warnings.warn(
            f"{what}: found dtype='packed' without an Unpack layer in the model: x is bytes of "
            "three features each; begin the model with Unpack.of(sequence), unless it reads such "
            "bytes",
            stacklevel=5,
        )
    elif layer is not None:
        raise FeatureError(
            f"{what}: found dtype={sequence.dtype!r}, but the model begins with an Unpack layer; "
            "use dtype='packed', or the model behind the layer"
        )
    else:
        check_scale(model, sequence.dtype, what)


def default_dtype(model: Any) -> str:
    """Return the default type of x: int8 if a model's Input is of integers, otherwise float32."""
    return "int8" if _integers(model) else "float32"


def check_scale(model: Any, dtype: str | None, what: str) -> None:
    """Raise a `FeatureError` if a model's Input is of integers, and x is of floats."""
    found = _integers(model)
    if found and dtype not in (None, "int8"):
        raise FeatureError(
            f"{what}: found dtype={dtype!r}, but the model's Input is of type {found}, which turns "
            "0.25 into 0; use dtype='int8'"
        )


def _integers(model: Any) -> str | None:
    """Return the type of a model's Input if it is of integers, or None."""
    try:
        inputs = model.inputs or []
        named = model.input if len(inputs) > 1 else None
    except (AttributeError, ValueError, RuntimeError):  # not built, or no functional model
        return None
    if isinstance(named, dict):  # the others are of floats
        inputs = [named[FEATURES]] if FEATURES in named else inputs
    elif len(inputs) > 1:
        inputs = [one for one in inputs if one.name.partition(":")[0] == FEATURES] or inputs
    kinds = [str(getattr(one.dtype, "name", one.dtype)) for one in inputs]
    return kinds[0] if kinds and all("int" in kind for kind in kinds) else None


def write_input(model: Any, folder: str) -> None:
    """Write the input that is attached to a model into a folder of its saved file."""
    noted = getattr(model, NOTE, None)
    if is_of(noted, ModelInput):
        Path(folder, _FILE).write_text(json.dumps(asdict(noted)), encoding="utf-8")


def read_input(model: Any, folder: Any) -> None:
    """Attach the input that `write_input` wrote to a model, if there is one."""
    path = Path(folder, _FILE) if folder else None
    if path is None or not path.is_file():
        return
    document = as_dict(json.loads(path.read_text(encoding="utf-8")))
    made_by, outputs = document.get("made_by"), document.get("outputs")
    inputs = document.get("inputs")
    note = ModelInput(
        as_names(document["features"]),
        as_text(document["dtype"]),
        as_text(document["batch_by"]),
        None if made_by is None else as_text(made_by),
        None if outputs is None else as_names(outputs),
        None if inputs is None else {name: as_names(one) for name, one in as_dict(inputs).items()},
    )
    setattr(model, NOTE, note)


def joined(known: ModelInput, asked: ModelInput, what: str) -> ModelInput:
    """Return a given input of a model, completed by the known input of its training.

    The unit of the batches may differ, because most models do not depend on it.

    Parameters
    ----------
    known, asked : ModelInput
        Input of the training, and given input.
    what : str
        Name of the caller, for errors.

    Raises
    ------
    FeatureError
        The features, their order, their scale, or the other inputs differ.
    """
    if None not in (known.features, asked.features):
        check_same_inputs(known.inputs or {}, asked.inputs or {}, what)
        _check_features(known.features or (), asked.features or (), what)
    if None not in (known.dtype, asked.dtype) and _is_raw(known) is not _is_raw(asked):
        raise FeatureError(
            f"{what}: found dtype={asked.dtype!r}, but the model was trained on {known.dtype!r}, "
            f"which has another scale; use dtype={known.dtype!r}"
        )
    return ModelInput(
        asked.features if asked.features is not None else known.features,
        asked.dtype or known.dtype,
        asked.batch_by or known.batch_by,
        asked.made_by or known.made_by,
        asked.outputs or known.outputs,
        asked.inputs if asked.inputs is not None else known.inputs,
    )


def _is_raw(model_input: ModelInput) -> bool:
    return model_input.dtype == "int8"


def _check_features(known: Sequence[str], asked: Sequence[str], what: str) -> None:
    if tuple(known) == tuple(asked):
        return
    if sorted(known) == sorted(asked):
        place = next(i for i, (a, b) in enumerate(zip(known, asked, strict=True)) if a != b)
        found = f"found the model's {len(known):,} features in another order: {asked[place]!r} at "
        found += f"place {place}, expected {known[place]!r}"
    else:
        missing, more = set(known) - set(asked), set(asked) - set(known)
        found = f"found {len(asked):,} features, expected the {len(known):,} that the model was "
        found += "trained on"
        found += f"; {min(missing)!r} is missing" if missing else ""
        found += f"; {min(more)!r} is not one of them" if more else ""
    raise FeatureError(
        f"{what}: {found}; use the features of the training sequence, in the same order",
        names=short(tuple(asked)),
    )
