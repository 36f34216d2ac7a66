"""Source pickle: models as the bytes of a pickle with source text and data, and no bytecode."""

from __future__ import annotations

import inspect
import io
import json
import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

import numpy as np

from ..errors import NumeraiSequenceError, naming
from ..scoring.model_outputs import name_columns, run_batch
from ..system.files import explained
from . import blends, rebuilt, residuals, uploaded
from .batch_members import Member
from .portable_config import as_plain, keras_of, portable_config

# The modules whose text is pickled. Each uses only the ones before it.
TEXTS = (blends, residuals, rebuilt, uploaded)
# Evaluated when the file is unpickled; the last part is the result.
_UNPICKLED = (
    "[exec(compile(text, name + '.py', 'exec'), globals()) for name, text in texts.items()] "
    "and make_predict(known)"
)
_Weight = tuple[str, tuple[int, ...], bytes]


@dataclass(frozen=True)
class Packed:
    """The data of a model in the function, made of the standard library's types only.

    Attributes
    ----------
    called : str
        Name of the model in errors.
    config : str
        Configuration of the model, as JSON.
    weights : list of (str, tuple of int, bytes)
        The dtype, shape and values of each weight, in the order of ``model.weights``.
    package, version : str
        Name and version of the model's Keras.
    features : list of str
        The columns of x.
    dtype : str
        Type of x: floats 0 to 1, or int8 0 to 4.
    inputs : dict of str to list of str
        The columns of other inputs, by the input's name.
    parts : list of (key, int or None, int or None)
        For each output that is kept, its key among the model's outputs, or None if it is the only
        one; and the start and stop of the values of a row that are kept.
    expected : list of list of float
        The model's predictions for `rebuilt.trial_input`, one list for each row.
    precision : str
        "half" if a layer computes with fewer bits than float32, otherwise "full".
    """

    called: str
    config: str
    weights: list[_Weight]
    package: str
    version: str
    features: list[str]
    dtype: str
    inputs: dict[str, list[str]]
    parts: list[tuple[Any, int | None, int | None]]
    expected: list[list[float]]
    precision: str


@dataclass(frozen=True)
class Upload:
    """The data of the function.

    Attributes
    ----------
    models : list of dict
        The attributes of a `Packed` for each model.
    features : list of str
        Features of all models, each once.
    batch_by : str
        "era" if the models are run on one whole era at a time.
    batch_rows : int
        Otherwise, the largest number of rows in a batch.
    weights : list of float, optional
        One weight for each column of predictions; None if they are not blended.
    ensemble : str
        Method of blending.
    neutral : list of str
        Features to neutralize to.
    proportion : float
    ranked : bool
    """

    models: list[dict[str, Any]]
    features: list[str]
    batch_by: str
    batch_rows: int
    weights: list[float] | None
    ensemble: str
    neutral: list[str]
    proportion: float
    ranked: bool


def pack_model(member: Member) -> tuple[list[str], Packed]:
    """Return the names of a model's columns of predictions, and the packed model.

    Raises
    ------
    NumeraiSequenceError
        The model cannot be saved, is not made of Keras's own layers, or predicts NaN.
    ValueError
        The model has no such output.
    """
    with naming(member.name):
        return _pack(member)


def _pack(member: Member) -> tuple[list[str], Packed]:
    model, features, dtype = member.model, list(member.wanted), str(member.known.dtype)
    inputs = {name: list(columns) for name, columns in member.inputs.items()}
    x = rebuilt.trial_input({"features": features, "dtype": dtype, "inputs": inputs})
    outputs, rows = run_batch(model, x), rebuilt.TRIED_ROWS
    columns = name_columns(model, outputs, member.output, rows=rows)
    expected = columns.take(outputs, rows)
    if not np.isfinite(expected).all():
        raise NumeraiSequenceError(
            "model: its predictions are NaN or infinite, expected numbers; check its weights"
        )
    keras, plain = keras_of(model), as_plain(model)
    config = json.dumps(portable_config(_read_config(_save(plain)), keras))
    packed = Packed(
        "the model" if member.name is None else f"the model {member.name!r}",
        config,
        [_as_bytes(weight) for weight in plain.get_weights()],
        keras.__name__,
        str(keras.__version__),
        features,
        dtype,
        inputs,
        [(key, places.start, places.stop) for key, places in columns.parts],
        expected.tolist(),
        "half" if "float16" in config else "full",
    )
    return member.name_columns(columns.names), packed


def _as_bytes(weight: Any) -> _Weight:
    array = np.asarray(weight)
    if array.dtype.kind not in "biuf":  # bfloat16, which not every NumPy knows
        array = array.astype(np.float32)
    array = array.astype(array.dtype.newbyteorder("<"))
    return array.dtype.str, array.shape, array.tobytes()


def _save(model: Any) -> bytes:
    with explained(gettempdir()), TemporaryDirectory() as folder:
        path = Path(folder, "model.keras")
        try:
            model.save(str(path))
        except (TypeError, ValueError, NotImplementedError) as error:
            raise NumeraiSequenceError(
                f"model: Keras cannot save it: {reason_of(error)}; build it of Keras's own layers "
                "and functions"
            ) from error
        return path.read_bytes()


def _read_config(saved: bytes) -> dict[str, Any]:
    with zipfile.ZipFile(io.BytesIO(saved)) as archive:
        config: dict[str, Any] = json.loads(archive.read("config.json"))
    # The model is loaded without its loss, metrics and optimizer.
    return {name: value for name, value in config.items() if name != "compile_config"}


def reason_of(error: BaseException) -> str:
    """Return the line of Keras's error that describes the problem."""
    lines = str(error.__cause__ or error).strip().rpartition("Exception encountered: ")[2]
    return lines.partition("\n")[0][:300].rstrip(".")


class _Uploaded:
    """An object whose pickle becomes the function. The pickle refers only to ``eval``."""

    def __init__(self, upload: Upload) -> None:
        self.known = dict(vars(upload))

    def __reduce__(self) -> tuple[Any, ...]:
        texts = {module.__name__.rpartition(".")[2]: inspect.getsource(module) for module in TEXTS}
        names = {"__name__": "predict", "__package__": "", "texts": texts, "known": self.known}
        return eval, (_UNPICKLED, names)


def pickled(upload: Upload) -> bytes:
    """Return the pickle of the function."""
    return pickle.dumps(_Uploaded(upload), protocol=4)
