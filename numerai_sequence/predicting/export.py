"""Export: turn a trained model into the pickled function that Numerai's model upload takes.

Numerai's side is https://docs.numer.ai/numerai-tournament/submissions/model-uploads and
https://github.com/numerai/numerai-predict: it unpickles a function of one or two frames, and wants
one frame back whose first column has no NaN and is within 0 and 1.
"""

from __future__ import annotations

import inspect
import io
import json
import pickle
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..checks import names_in_order
from ..errors import FeatureError, NumeraiSequenceError, check_known
from ..extras import load_extra
from ..feeding.model_input import ModelInput
from ..files import explained, replaced
from ..reading.shards import PathLike
from ..scoring.models import Columns, Floats, name_columns, run_batch
from . import uploaded
from .fed import known_input, settle_input
from .portable import as_plain, is_keras_2, keras_of, portable_config
from .uploaded import trial_digits, trial_input

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = load_extra("pandas", "pandas", "uploads")

# What is evaluated where the file is unpickled; the second part is what it returns.
_UNPICKLED = "exec(compile(source, __name__ + '.py', 'exec'), globals()) or make_predict(known)"
_Weight = tuple[str, tuple[int, ...], bytes]
# Of the largest prediction: what two runs of the same model may differ by.
_TOLERANCE = 1e-4
_OTHER_VALUES = "the function that was to be uploaded predicts other values than the model"


@dataclass(frozen=True)
class Upload:
    """What the function knows: only what the standard library has, for NumPy's arrays vary.

    Attributes
    ----------
    config : str
        Of the model, as JSON.
    weights : list of (str, tuple of int, bytes)
        The dtype, shape and values of each, in the order of ``model.weights``.
    package, version : str
        The Keras that the model is of.
    features : list of str
        The columns of x.
    dtype : str
        Of x: floats 0..1, or int8 0..4.
    key
        Of the output among those that the model returns; None where that is the output.
    place : int
        Of the one value of a row of that output.
    ranked : bool
    batch_by : str
        "era" where the model is run on one whole era at a time.
    expected : list of float
        What the model predicts for `trial_input`.
    precision : str
        "half" where a layer computes with fewer bits than float32, or "full".
    """

    config: str
    weights: list[_Weight]
    package: str
    version: str
    features: list[str]
    dtype: str
    key: Any
    place: int
    ranked: bool
    batch_by: str
    expected: list[float]
    precision: str


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
    Numerai marks it; any other value is an error. The file is tried before it is accepted.

    The file holds source text and data, and no bytecode: it runs on Python 3.10 to 3.13 with Keras
    3.10 or newer, which all images of Numerai's have. A model of tf_keras or TensorFlow 2.15 needs
    an image with tf_keras (Python 3.10 to 3.12).

    Parameters
    ----------
    model : Keras model
        Of Keras's own layers, as Keras 3.10 has them: Numerai does not have others. Losses,
        metrics, initializers, regularizers and constraints do not matter.
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
        The model has a layer, function or argument that is not Keras's own, or that Keras 3.10
        does not have or builds wrongly; Keras cannot save it; its predictions are NaN; or those of
        the function are not the same.
    OutputError
        The system does not let it be written.
    """
    path = Path(path)
    if path.suffix != ".pkl":
        raise ValueError(f"{path}: found suffix {path.suffix!r}, expected '.pkl'")
    fed = input_to_export(model, like=like, features=features, dtype=dtype, batch_by=batch_by)
    output = output if output is not None else getattr(like, "output", None)
    names = list(fed.features or ())
    x = trial_input({"features": names, "dtype": fed.dtype})
    outputs = run_batch(model, x)
    columns = name_columns(model, outputs, output, rows=len(x))
    if len(columns.names) != 1:
        raise ValueError(
            f"model: {len(columns.names)} values a row, {', '.join(columns.names[:5])}; expected "
            "one; choose it with output="
        )
    expected = columns.take(outputs, len(x))[:, 0]
    if not np.isfinite(expected).all():
        raise NumeraiSequenceError(
            "model: its predictions are NaN or infinite; look at its weights"
        )
    pickled = _pickle(_make_upload(model, fed, columns, expected, ranked))
    _try(pickled, pd.DataFrame(trial_digits(len(names)), columns=names), expected, ranked)
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
    if known.inputs:
        raise FeatureError(
            f"model: takes the input {next(iter(known.inputs))!r} besides the features, expected "
            "features alone: the exported function feeds no other inputs",
            names=tuple(known.inputs),
        )
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


def runs_where(keras: ModuleType) -> str:
    """Say which Keras and which of Numerai's images an exported model of a Keras needs."""
    if is_keras_2(keras):
        return "for tf_keras: choose one of Numerai's images of Python 3.10 to 3.12, which have it"
    return "for Keras 3.10 or newer and Python 3.10 to 3.13: any of Numerai's images"


def _make_upload(
    model: Any, fed: ModelInput, columns: Columns, expected: Floats, ranked: bool
) -> Upload:
    keras = keras_of(model)
    model = as_plain(model)
    config = portable_config(_read_config(_save(model)), keras)
    [(key, place)] = columns.parts
    return Upload(
        json.dumps(config),
        [_as_bytes(weight) for weight in model.get_weights()],
        keras.__name__,
        str(keras.__version__),
        list(fed.features or ()),
        str(fed.dtype),
        key,
        place.start or 0,
        ranked,
        str(fed.batch_by),
        expected.tolist(),
        "half" if "float16" in json.dumps(config) else "full",
    )


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
                f"model: Keras cannot save it: {_reason(error)}; build it of Keras's own layers "
                "and functions"
            ) from error
        return path.read_bytes()


def _read_config(saved: bytes) -> dict[str, Any]:
    with zipfile.ZipFile(io.BytesIO(saved)) as archive:
        config: dict[str, Any] = json.loads(archive.read("config.json"))
    # It is loaded without its loss, metrics and optimizer.
    return {name: value for name, value in config.items() if name != "compile_config"}


class _Uploaded:
    """It is the function where it is unpickled; the pickle names ``eval`` and no other thing."""

    def __init__(self, upload: Upload) -> None:
        self.known = dict(vars(upload))

    def __reduce__(self) -> tuple[Any, ...]:
        source = inspect.getsource(uploaded)
        names = {"__name__": "predict", "source": source, "known": self.known}
        return eval, (_UNPICKLED, names)


def _pickle(upload: Upload) -> bytes:
    return pickle.dumps(_Uploaded(upload), protocol=4)


def _try(pickled: bytes, rows: pd.DataFrame, expected: Floats, ranked: bool) -> None:
    """Load the pickle, and compare its predictions with the model's own."""
    predict = pickle.loads(pickled)
    # Neither the order of the columns nor others may matter, nor how the features are written.
    whole = rows[rows.columns[::-1]]
    for features in (whole, whole / 4, whole.where(whole != 2)):
        try:
            found = predict(features.assign(era="X"))["prediction"].to_numpy()
        except RuntimeError as error:
            raise NumeraiSequenceError(
                f"model: cannot be loaded again once it is saved: {_reason(error)}"
            ) from error
        except ValueError as error:
            raise NumeraiSequenceError(_OTHER_VALUES) from error
        if not _agree(found, expected, ranked):
            raise NumeraiSequenceError(_OTHER_VALUES)


def _reason(error: BaseException) -> str:
    """Return the line of Keras's error that says what is wrong."""
    lines = str(error.__cause__ or error).strip().rpartition("Exception encountered: ")[2]
    return lines.partition("\n")[0][:300].rstrip(".")


def _agree(found: npt.NDArray[Any], expected: Floats, ranked: bool) -> bool:
    tolerance = _TOLERANCE * float(np.abs(expected).max())
    if not ranked:
        return bool(np.allclose(found, expected, rtol=0, atol=tolerance))
    # Nearly equal predictions may change places.
    return bool((np.diff(expected[np.argsort(found)]) >= -tolerance).all())
