"""Export: turn a trained model into the pickled function that Numerai's model upload takes.

Numerai's side is https://docs.numer.ai/numerai-tournament/submissions/model-uploads and
https://github.com/numerai/numerai-predict: it unpickles a function of one or two frames, and wants
one frame back whose first column has no NaN and is within 0 and 1.
"""

from __future__ import annotations

import importlib
import io
import json
import pickle
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..checks import names_in_order
from ..errors import NumeraiSequenceError, check_known
from ..extras import load_extra
from ..feeding.model_input import ModelInput
from ..files import explained, replaced
from ..format.encoding import LARGEST, SCALE
from ..reading.shards import PathLike
from ..scoring.models import Columns, Floats, name_columns, run_batch
from . import uploaded
from .fed import known_input, settle_input
from .uploaded import Upload, make_predict

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = load_extra("pandas", "pandas", "uploads")

_KERAS = ("keras", "tf_keras")
_TRIED_ROWS = 64
# Of the largest prediction: what two runs of the same model may differ by.
_TOLERANCE = 1e-4


def export_predict(
    model: Any,
    path: PathLike,
    *,
    like: Any = None,
    features: Sequence[str] | None = None,
    output: str | None = None,
    dtype: str | None = None,
    batch_by: str | None = None,
    ranked: bool = True,
) -> Path:
    """Write the pickle that Numerai's model upload takes.

    It holds a function ``predict(live_features, live_benchmark_models=None)`` that needs NumPy,
    pandas and Keras, but not this package. Columns may come in any order, and others are ignored;
    features are 0..4, or 0..1 as of old. A missing value (NaN) counts as the middle, which is how
    Numerai marks it. The file is tried before it is accepted.

    The pickle holds Python's bytecode, and the model in Keras's own format: export it with the
    Python, Keras and cloudpickle versions that Numerai will run it with.

    Parameters
    ----------
    model : Keras model
        Of Keras's own layers: Numerai does not have others. Losses and metrics do not matter.
    path : path
        ``.pkl``; what is there is replaced.
    like : NumeraiSequence or Run, optional
        What the model was trained on, where the model does not remember it; as of
        `numerai_sequence.predict`.
    features : sequence of str, optional
        Those that the model was trained on, in the same order: ``sequence.features``. None for
        those that the model remembers, or of `like`.
    output : str, optional
        Which output of a model of several, as of `numerai_sequence.predict`.
    dtype : {"float32", "float16", "int8"}, optional
        Of x, as of the `NumeraiSequence` that the model was trained on. None for what the model
        remembers, or "float32".
    batch_by : {"rows", "era"}, optional
        "era" runs the model on one whole era at a time, and live data are one era: 7,000 rows of
        3,555 features take 100 MB as float32, of the 4 GB that Numerai gives. None as of
        `numerai_sequence.predict`.
    ranked : bool
        Replace predictions by their ranks within the era, in (0, 1). Without, the model itself
        has to stay within 0 and 1.

    Returns
    -------
    path
        `path`.

    Raises
    ------
    FeatureError
        The model was trained on other features, on another order or scale of them, or takes
        another number of them; or one is named twice.
    ValueError
        The features are not known, the suffix is another one, or the model has several values a
        row.
    NumeraiSequenceError
        cloudpickle is not installed; the model has layers that are not Keras's own; its predictions
        are NaN; or those of the function are not the same.
    OutputError
        The system does not let it be written.
    """
    path = Path(path)
    if path.suffix != ".pkl":
        raise ValueError(f"{path}: found suffix {path.suffix!r}, expected '.pkl'")
    fed = input_to_export(model, like=like, features=features, dtype=dtype, batch_by=batch_by)
    output = output if output is not None else getattr(like, "output", None)
    names = list(fed.features or ())
    digits = np.random.default_rng(0).integers(0, LARGEST + 1, (_TRIED_ROWS, len(names)), np.int8)
    x = digits if fed.dtype == "int8" else (digits * SCALE).astype(fed.dtype)
    outputs = run_batch(model, x)
    columns = name_columns(model, outputs, output, rows=len(x))
    if len(columns.names) != 1:
        raise ValueError(
            f"model: {len(columns.names)} values a row, {', '.join(columns.names[:5])}; expected "
            "one; choose it with output="
        )
    pickled = _pickle(make_predict(_make_upload(model, fed, columns, ranked)))
    _try(pickled, pd.DataFrame(digits, columns=names), columns.take(outputs, len(x))[:, 0], ranked)
    with replaced(path) as temporary:
        temporary.write_bytes(pickled)
    return path


def input_to_export(
    model: Any,
    *,
    like: Any,
    features: Sequence[str] | None = None,
    dtype: str | None = None,
    batch_by: str | None = None,
) -> ModelInput:
    """Return what the function feeds the model; the options are as of `export_predict`."""
    if isinstance(features, str):
        raise TypeError(f"features: found {features!r}, expected a list of feature names")
    known = known_input(model, like)
    names = known.features if features is None else names_in_order("features", features)
    if names is None:
        raise ValueError(
            "features: found none, and the model does not remember those that it was trained on; "
            "give the training sequence or the run as like=, or features=sequence.features"
        )
    check_known("feature", names, names, "features")
    asked = ModelInput(names, dtype, batch_by)
    return settle_input(
        model,
        known,
        asked,
        "features",
        remedy="name those that it was trained on",
        made_remedy="the exported function feeds one array: make what the model takes in the model",
    )


def _make_upload(model: Any, fed: ModelInput, columns: Columns, ranked: bool) -> Upload:
    keras = _keras_of(model)
    saved = _save(model)
    foreign = sorted(set(_find_foreign(_read_config(saved))))
    if foreign:
        raise NumeraiSequenceError(
            f"model: {foreign[0]!r} is not Keras's own, and Numerai does not have it; "
            "build the model of Keras's own layers and functions"
        )
    [(key, place)] = columns.parts
    return Upload(
        saved,
        keras.__name__,
        keras.__version__,
        list(fed.features or ()),
        str(fed.dtype),
        key,
        place,
        ranked,
        str(fed.batch_by),
    )


def _keras_of(model: Any) -> ModuleType:
    """Return the Keras package that a model is made of."""
    for parent in type(model).__mro__:
        package = parent.__module__.split(".")[0]
        if package in _KERAS:
            return importlib.import_module(package)
    raise TypeError(f"model: found {type(model).__name__}, expected a Keras model")


def _save(model: Any) -> bytes:
    with explained(gettempdir()), TemporaryDirectory() as folder:
        path = Path(folder, "model.keras")
        model.save(str(path))
        return path.read_bytes()


def _read_config(saved: bytes) -> dict[str, Any]:
    with zipfile.ZipFile(io.BytesIO(saved)) as archive:
        config: dict[str, Any] = json.loads(archive.read("config.json"))
    # It is loaded without its loss, metrics and optimizer.
    return {name: value for name, value in config.items() if name != "compile_config"}


def _find_foreign(config: Any) -> Iterator[str]:
    """Yield the names of a user's classes and registered functions, which would be found here."""
    if isinstance(config, dict):
        module, name = config.get("module", ""), config.get("registered_name")
        if name and (module is None or module.split(".")[0] not in (*_KERAS, "builtins")):
            yield str(name)
        function = config.get("config") if name == "function" else None
        if isinstance(function, str) and ">" in function:
            yield function
    if isinstance(config, (dict, list)):
        for value in config.values() if isinstance(config, dict) else config:
            yield from _find_foreign(value)


def _pickle(function: Any) -> bytes:
    cloudpickle = load_extra("cloudpickle", "cloudpickle", "uploads")
    # Or it would only name the functions, and where to import them from.
    cloudpickle.register_pickle_by_value(uploaded)
    try:
        return bytes(cloudpickle.dumps(function))
    finally:
        cloudpickle.unregister_pickle_by_value(uploaded)


def _try(pickled: bytes, rows: pd.DataFrame, expected: Floats, ranked: bool) -> None:
    """Load the pickle, and compare its predictions with the model's own."""
    if np.isnan(expected).any():
        raise NumeraiSequenceError("model: its predictions are NaN; look at its weights")
    predict = pickle.loads(pickled)
    # Neither the order of the columns nor others may matter.
    frame = rows[rows.columns[::-1]].assign(era="X")
    try:
        found = predict(frame)["prediction"].to_numpy()
    except RuntimeError as error:
        reason = str(error.__cause__ or error).partition("\n")[0]
        raise NumeraiSequenceError(
            f"model: cannot be loaded again once it is saved: {reason}"
        ) from error
    if not _agree(found, expected, ranked):
        raise NumeraiSequenceError(
            "the function that was to be uploaded predicts other values than the model"
        )


def _agree(found: npt.NDArray[Any], expected: Floats, ranked: bool) -> bool:
    tolerance = _TOLERANCE * float(np.abs(expected).max())
    if not ranked:
        return bool(np.allclose(found, expected, rtol=0, atol=tolerance))
    # Nearly equal predictions may change places.
    return bool((np.diff(expected[np.argsort(found)]) >= -tolerance).all())
