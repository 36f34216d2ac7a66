"""Export: the pickled function of a trained model, for Numerai's model upload.

Numerai's side is described in
https://docs.numer.ai/numerai-tournament/submissions/model-uploads and
https://github.com/numerai/numerai-predict. It unpickles a function of one or two frames. The
function returns a frame whose first column has values from 0 to 1, without NaN.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from ..checks import names_in_order
from ..errors import NumeraiSequenceError, check_known, naming
from ..feeding.model_input import ModelInput
from ..reading.shard_set import PathLike
from ..scoring.forward_pass import most_rows
from ..system.files import replaced
from ..system.optional_packages import load_extra
from .batch_members import Member, check_names, make_members, union_of
from .model_features import settle_input
from .named_models import Named, name_models
from .portable_config import is_keras_2
from .rebuilt import trial_digits
from .source_pickle import Packed, Upload, pack_model, pickled, reason_of
from .upload_postprocessing import Finish, read_finish

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = load_extra("pandas", "pandas", "uploads")

# The share of the largest prediction by which two runs of the same model may differ.
_TOLERANCE = 1e-4
_OTHER_VALUES = "the exported function predicts other values than the model"


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
    ensemble: str | None = None,
    weights: Sequence[float] | Mapping[str, float] | None = None,
    neutralize: str | Sequence[str] | bool | None = None,
    proportion: float = 1.0,
    features_json: PathLike | None = None,
) -> Path:
    """Write a model or an ensemble as a pickle for Numerai's model upload.

    The pickle holds a function ``predict(live_features, live_benchmark_models=None)``. It needs
    NumPy, pandas and Keras, but not this package. The columns may have any order, and other columns
    are ignored. Features are 0 to 4, or 0 to 1 as in older data. A missing value (NaN) counts as
    the middle, 2, as Numerai defines it. Any other value is an error. Columns of other inputs,
    ``NumeraiSequence(inputs=)``, are taken from ``live_benchmark_models``. The file is tested
    before it replaces an older one.

    The function does the same as these calls, and returns the same bits on the same machine::

        predictions = predict(models, "live.parquet", with_era=True)
        blended = ensemble(predictions, weights, by="rank")
        neutral = neutralize(blended, "live.parquet", features=names, proportion=0.5)
        final = ensemble(neutral, eras="live.parquet")

    A single model is ranked before it is neutralized only if `ensemble` is given. Without
    `neutralize`, the ensemble is the result.

    The file holds source text and data, and no bytecode. It runs on Python 3.10 to 3.13 with Keras
    3.10 or newer, as in all of Numerai's images. A model of tf_keras or TensorFlow 2.15 needs an
    image with tf_keras (Python 3.10 to 3.12).

    Parameters
    ----------
    model : Keras model, path, sequence, or mapping
        A model of Keras's own layers, as in Keras 3.10; Numerai has no others. Losses, metrics,
        initializers, regularizers and constraints do not matter. Also the path of a run's folder
        or of a saved model, or several models. See `numerai_sequence.predict`. If one of them needs
        whole eras, all models are run on whole eras.
    path : path
        File to write, with the suffix ``.pkl``. An existing file is replaced.
    like : NumeraiSequence or Run, optional
        The training sequence or the run, if the model does not remember its input. See
        `numerai_sequence.predict`.
    features : sequence of str, optional
        Features that the model was trained on, in the same order: ``sequence.features``. None for
        the features that the model remembers, or those of `like`. With several models, `features`
        and `dtype` are for the models that do not remember theirs.
    output : str, optional
        Name of the output to use, if a model has several. None means
        the only output, or all outputs of an ensemble.
    dtype : {"float32", "float16", "int8"}, optional
        Type of the features that the model receives, the same as in training. None for the type
        that the model remembers, or "float32".
    batch_by : {"rows", "era"}, optional
        "era" runs the model on one whole era at a time. Live data are one era: 7,000 rows of 3,555
        features take 100 MB as float32, and Numerai provides 4 GB. For None see
        `numerai_sequence.predict`.
    ranked : bool
        Whether to replace predictions by their ranks within the era, in (0, 1). If False, the
        predictions themselves must be within 0 and 1. Neutralized predictions lie around 0, so
        Numerai refuses them without ranks.
    ensemble : {"rank", "gaussian"}, optional
        Method that combines several models, like ``by=`` of `numerai_sequence.ensemble`. None for
        "rank" if there are several columns of predictions.
    weights : sequence or mapping of float, optional
        One weight for each column that `numerai_sequence.predict` returns, in order or by name.
        None for equal weights.
    neutralize : str, sequence of str, or bool, optional
        Features to neutralize the prediction to: a list, or the name of a feature set. True for all
        features that the models take. The live data must have these features; the models need not
        take them. See `numerai_sequence.neutralize`.
    proportion : float
        Proportion of the neutralization, such as 0.5.
    features_json : path, optional
        File with Numerai's feature sets, for a name in `neutralize`. None for the feature sets of
        the shard set of `like`.

    Returns
    -------
    path
        `path`.

    Raises
    ------
    FeatureError
        The model was trained on other features, in another order or scale, or takes another number
        of features; a feature is named twice; or `neutralize` names an unknown feature.
    ValueError
        The features are not known; the suffix is not ``.pkl``; the number of weights is wrong; or
        the only model has several values a row, and `ensemble` is not given.
    NumeraiSequenceError
        The model has a layer, function or argument that is not Keras's own, or that Keras 3.10
        lacks or builds wrongly; Keras cannot save the model; its predictions are NaN; or the
        function predicts other values.
    OutputError
        The system refuses to write the file.
    """
    path = Path(path)
    if path.suffix != ".pkl":
        raise ValueError(f"{path}: found suffix {path.suffix!r}, expected '.pkl'")
    members = members_to_export(
        name_models(model, like), features=features, output=output, dtype=dtype, batch_by=batch_by
    )
    finish = read_finish(
        ranked=ranked,
        ensemble=ensemble,
        weights=weights,
        neutralize=neutralize,
        proportion=proportion,
        features=union_of(members),
        like=like,
        features_json=features_json,
    )
    return export_members(members, path, finish)


def members_to_export(
    models: Sequence[Named],
    *,
    features: Sequence[str] | None = None,
    output: str | None = None,
    dtype: str | None = None,
    batch_by: str | None = None,
) -> list[Member]:
    """Return the models with their inputs in the function. For the options see `export_predict`.

    Raises
    ------
    FeatureError, ValueError
        A model was trained on another input, or its training input is not known.
    """
    if isinstance(features, str):
        raise TypeError(f"features: found {features!r}, expected a list of feature names")
    if features is not None:
        features = names_in_order("features", features)
    asked = ModelInput(dtype=dtype, batch_by=batch_by)
    members = make_members(models, features, output, asked)
    settled = []
    for member in members:
        with naming(member.name):
            settled.append(_settled(member))
    return settled


def _settled(member: Member) -> Member:
    """Return a model with its complete input."""
    if member.features is None:
        raise ValueError(
            "features: found none, and the model does not remember its features; give the training "
            "sequence or the run as like=, or features=sequence.features"
        )
    names = tuple(member.features)
    check_known("feature", names, names, "features")
    asked = replace(member.asked, features=names, inputs=member.known.inputs)
    fed = settle_input(
        member.model,
        member.known,
        asked,
        "features",
        remedy="name the features that it was trained on",
        made_remedy="the exported function feeds one array, so make the other inputs in the model",
    )
    return replace(member, asked=asked, known=fed, is_settled=True)


def export_members(members: Sequence[Member], path: Path, finish: Finish) -> Path:
    """Write the pickle of models that are settled; return its path."""
    packed, names = [], []
    for member in members:
        columns, one = pack_model(member)
        names += columns
        packed.append(one)
    check_names(names, with_era=False)
    weights = finish.weights_of(names, is_one_model=members[0].name is None)
    content = pickled(_make_upload(members, packed, weights, finish))
    _try(content)
    with replaced(path) as temporary:
        temporary.write_bytes(content)
    return path


def batch_by_of(members: Sequence[Member]) -> str:
    """Return "era" if one of the models needs whole eras, otherwise "rows"."""
    return "era" if any(member.known.batch_by == "era" for member in members) else "rows"


def runs_where(keras: ModuleType) -> str:
    """Return a text that names the Keras and the Numerai images for a model of this Keras."""
    if is_keras_2(keras):
        return "for tf_keras: choose one of Numerai's images of Python 3.10 to 3.12, which have it"
    return "for Keras 3.10 or newer and Python 3.10 to 3.13: choose any of Numerai's images"


def _make_upload(
    members: Sequence[Member], packed: Sequence[Packed], weights: list[float] | None, finish: Finish
) -> Upload:
    features = union_of(members)
    # Names that are the same object are pickled once.
    same = {name: name for name in (*features, *finish.neutral)}
    models = [{**vars(one), "features": [same[name] for name in one.features]} for one in packed]
    return Upload(
        models,
        list(features),
        batch_by_of(members),
        most_rows(len(features)),
        weights,
        finish.ensemble or "rank",
        [same[name] for name in finish.neutral],
        finish.proportion,
        finish.ranked,
    )


def _try(content: bytes) -> None:
    """Load the pickle, and compare the predictions of each model with the model's own."""
    there = pickle.loads(content).__globals__
    for one in there["known"]["models"]:
        called = one["called"].removeprefix("the ")
        try:
            is_same = _is_same(there, one)
        except RuntimeError as error:
            raise NumeraiSequenceError(
                f"{called}: cannot be loaded from the exported file: {reason_of(error)}; build it "
                "of Keras's own layers and functions"
            ) from error
        except ValueError as error:
            raise NumeraiSequenceError(f"{called}: {_OTHER_VALUES}") from error
        if not is_same:
            raise NumeraiSequenceError(f"{called}: {_OTHER_VALUES}")


def _is_same(there: Mapping[str, Any], one: dict[str, Any]) -> bool:
    """Return whether the function predicts the same values as a model by itself."""
    known = {**there["known"], "models": [one], "features": one["features"], "neutral": []}
    digits, expected = trial_digits(len(one["features"])), np.array(one["expected"])
    whole = pd.DataFrame(digits[:, ::-1], columns=one["features"][::-1])
    others = pd.DataFrame(there["trial_others"](one["inputs"]))[::-1]
    model, tolerance = there["rebuild"](one), _TOLERANCE * np.abs(expected).max(axis=0)
    # The order of the columns, other columns, and the scale of the features must not matter.
    for features in (whole, whole / 4, whole.where(whole != 2)):
        found = there["Live"](features, known, others).columns([model])
        if not (np.abs(found - expected) <= tolerance).all():
            return False
    return True
