"""Model input: what a model was fed when it was trained, which travels with it.

The order of the features, their scale, and whether a batch was whole eras cannot be seen in a
model: fed otherwise it runs, and predicts worse. So ``fit`` notes them with the model, a saved
model holds them, and who feeds it later compares them; see `keras_compat` for how they are saved.
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
from ..ordering.batchings import BATCH_BY
from .unpacked_models import NOTE, core_of, unpack_of

_FILE = "numerai_sequence.json"


@dataclass(frozen=True)
class ModelInput:
    """What a model is fed; what is None is not known.

    Attributes
    ----------
    features : tuple of str, optional
        The columns of x, in order.
    dtype : str, optional
        Of x, as of `NumeraiSequence`.
    batch_by : str, optional
        "rows", or "era" where a batch was whole eras; one of `PREDICT_BY`.
    made_by : str, optional
        The class of the sequence, where it makes batches of its own: x may be anything.
    outputs : tuple of str, optional
        The names in ``target=``, in order: those of a model's outputs that have no names.
    inputs : mapping of str to tuple of str, optional
        The columns of each input besides the features; None where there are no others.
    """

    features: tuple[str, ...] | None = None
    dtype: str | None = None
    batch_by: str | None = None
    made_by: str | None = None
    outputs: tuple[str, ...] | None = None
    inputs: Inputs | None = None


def input_like(like: Any) -> ModelInput:
    """Return what a sequence feeds, or what the model of a run was fed.

    Raises
    ------
    TypeError
        It is neither.
    """
    if like is None:
        return ModelInput()
    try:
        made_by, target = getattr(like, "made_by", None), getattr(like, "target", None)
        outputs = tuple(target) if isinstance(target, Mapping) else None
        inputs = getattr(like, "inputs", None) or None  # a run has no others
        # What an `Unpack` layer makes of packed rows.
        dtype = "float32" if like.dtype == PACKED else like.dtype
        run_by = BATCH_BY[like.batch_by].predict_by
        return ModelInput(tuple(like.features), dtype, run_by, made_by, outputs, inputs)
    except AttributeError:
        raise TypeError(
            f"like: found {type(like).__name__}, expected the NumeraiSequence that the model was "
            "trained on, or the run that read_run returns"
        ) from None


def note_input(model: Any, sequence: Any) -> None:
    """Note with a model what it is trained on, and with the model behind an `Unpack` layer."""
    models = [model]
    if unpack_of(model) is not None:
        with suppress(NumeraiSequenceError):  # it has none
            models.append(core_of(model))
    for one in models:
        setattr(one, NOTE, input_like(sequence))


def input_noted(model: Any) -> ModelInput:
    """Return what is noted with a model."""
    noted = getattr(model, NOTE, None)
    return noted if is_of(noted, ModelInput) else ModelInput()


def check_inputs(model: Any, method: str, sequences: Iterable[Any], trained: Any) -> None:
    """Check that sequences feed a model what it is trained on, or was.

    Parameters
    ----------
    model : Keras model
    method : {"fit", "evaluate", "predict"}
        Of the model's, which is to be fed them.
    sequences : iterable of NumeraiSequence
    trained : NumeraiSequence or None
        The one of them that ``fit`` trains on.

    Raises
    ------
    FeatureError
        As of `joined`.

    Warns
    -----
    UserWarning
        The model was trained on something else before; or it was trained on whole eras, and a
        sequence has batches of rows.
    """
    known = input_noted(model)
    if trained is not None:
        try:
            joined(known, input_like(trained), method)
        except FeatureError as error:
            warnings.warn(f"{error}. This fit goes on with the new sequence.", stacklevel=4)
        known = input_like(trained)
    for sequence in sequences:
        check_packed(model, sequence, method)
        found = input_like(sequence)
        joined(known, found, method)
        if known.batch_by == "era" and found.batch_by != "era":
            warnings.warn(
                f"{method}: found a sequence with batch_by={sequence.batch_by!r}, but the model "
                "was trained on whole eras; a loss or a model that looks at a whole era gives "
                "other values on batches of rows; use batch_by='era'",
                stacklevel=4,
            )


def check_packed(model: Any, sequence: Any, what: str) -> None:
    """Check that a model which begins with an `Unpack` layer is fed packed rows, and no other.

    Raises
    ------
    FeatureError, NumeraiSequenceError, ValueError
        It is not; or the layer is for other rows.

    Warns
    -----
    UserWarning
        The model has no such layer.
    """
    layer, is_packed = unpack_of(model), sequence.dtype == PACKED
    if layer is not None and is_packed:
        layer.check(sequence)
    elif sequence.made_by is not None:  # which may feed anything
        return
    elif is_packed:
        warnings.warn(
            f"{what}: found dtype='packed', and no Unpack layer in the model: x are bytes of three "
            "features each; begin the model with Unpack.of(sequence), unless it reads such bytes",
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
    """Return the type of x where none is known: int8 where a model's Input is of integers."""
    return "int8" if _integers(model) else "float32"


def check_scale(model: Any, dtype: str | None, what: str) -> None:
    """Raise a `FeatureError` where a model's own input is of integers, and it is fed floats."""
    found = _integers(model)
    if found and dtype not in (None, "int8"):
        raise FeatureError(
            f"{what}: found dtype={dtype!r}, but the model's Input is of {found}, in which 0.25 "
            "becomes 0; use dtype='int8'"
        )


def _integers(model: Any) -> str | None:
    """Return the type of a model's own inputs where that is one of integers."""
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
    """Write what is noted with a model into a folder of what is saved of it."""
    noted = getattr(model, NOTE, None)
    if is_of(noted, ModelInput):
        Path(folder, _FILE).write_text(json.dumps(asdict(noted)), encoding="utf-8")


def read_input(model: Any, folder: Any) -> None:
    """Note with a model what `write_input` has written, if it has."""
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
    """Return what is known of a model's input, and besides what is asked for.

    Batches may be asked for in another way than is known: most models do not mind.

    Parameters
    ----------
    known, asked : ModelInput
    what : str
        Who asks, for errors.

    Raises
    ------
    FeatureError
        Other features or other inputs are asked for, in another order, or on another scale.
    """
    if None not in (known.features, asked.features):
        check_same_inputs(known.inputs or {}, asked.inputs or {}, what)
        _check_features(known.features or (), asked.features or (), what)
    if None not in (known.dtype, asked.dtype) and _is_raw(known) is not _is_raw(asked):
        raise FeatureError(
            f"{what}: found dtype={asked.dtype!r}, but the model was trained on {known.dtype!r}, "
            f"whose values have another scale; use dtype={known.dtype!r}"
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
