"""Export: turn a trained model into the pickled function that Numerai's model upload takes.

Numerai's side is https://docs.numer.ai/numerai-tournament/submissions/model-uploads and
https://github.com/numerai/numerai-predict: it unpickles a function of one or two frames, and wants
one frame back whose first column has no NaN and is within 0 and 1.
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
from ..system.extras import load_extra
from ..system.files import replaced
from .ensemble_members import Member, check_names, make_members, union_of
from .fed_features import settle_input
from .named_models import Named, name_models
from .packed_pickle import Packed, Upload, pack_model, pickled, reason_of
from .portable_config import is_keras_2
from .rebuilt import trial_digits
from .upload_finish import Finish, read_finish

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = load_extra("pandas", "pandas", "uploads")

# Of the largest prediction: what two runs of the same model may differ by.
_TOLERANCE = 1e-4
_OTHER_VALUES = "the function that was to be uploaded predicts other values than the model"


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
    """Write the pickle that Numerai's model upload takes, of one model or of an ensemble.

    It holds a function ``predict(live_features, live_benchmark_models=None)`` that needs NumPy,
    pandas and Keras, but not this package. Columns may come in any order, and others are ignored;
    features are 0..4, or 0..1 as of old. A missing value (NaN) counts as the middle, which is how
    Numerai marks it; any other value is an error. The file is tried before it is accepted. The
    columns of other inputs, ``NumeraiSequence(inputs=)``, are taken from ``live_benchmark_models``.

    The function does what these calls do, and returns the same bits on the same machine::

        predictions = predict(models, "live.parquet", with_era=True)
        blended = ensemble(predictions, weights, by="rank")
        neutral = neutralize(blended, "live.parquet", features=names, proportion=0.5)
        final = ensemble(neutral, eras="live.parquet")

    One model is not ranked before it is neutralized, unless `ensemble` is given. Without
    `neutralize`, the ensemble is the result.

    The file holds source text and data, and no bytecode: it runs on Python 3.10 to 3.13 with Keras
    3.10 or newer, which all images of Numerai's have. A model of tf_keras or TensorFlow 2.15 needs
    an image with tf_keras (Python 3.10 to 3.12).

    Parameters
    ----------
    model : Keras model, path, sequence, or mapping
        Of Keras's own layers, as Keras 3.10 has them: Numerai does not have others. Losses,
        metrics, initializers, regularizers and constraints do not matter. Or the path of a run's
        folder or of a saved model; or several models, as of `numerai_sequence.predict`. Where one
        of them needs whole eras, all are run on whole eras.
    path : path
        ``.pkl``; what is there is replaced.
    like : NumeraiSequence or Run, optional
        What the model was trained on, where the model does not remember it; as of
        `numerai_sequence.predict`.
    features : sequence of str, optional
        Those that the model was trained on, in the same order: ``sequence.features``. None for
        those that the model remembers, or of `like`. Of several models, this and `dtype` are for
        those that do not remember theirs.
    output : str, optional
        Which output of a model of several, as of `numerai_sequence.predict`. None for the only
        one; in an ensemble, all of them take part.
    dtype : {"float32", "float16", "int8"}, optional
        Of x, as of the `NumeraiSequence` that the model was trained on. None for what the model
        remembers, or "float32".
    batch_by : {"rows", "era"}, optional
        "era" runs the model on one whole era at a time, and live data are one era: 7,000 rows of
        3,555 features take 100 MB as float32, of the 4 GB that Numerai gives. None as of
        `numerai_sequence.predict`.
    ranked : bool
        Replace predictions by their ranks within the era, in (0, 1). Without, one model itself has
        to stay within 0 and 1, and neutralized predictions lie around 0, which Numerai refuses.
    ensemble : {"rank", "gaussian"}, optional
        How several models become one prediction, as ``by=`` of `numerai_sequence.ensemble`. None
        for "rank" where there are several columns of predictions.
    weights : sequence or mapping of float, optional
        As of `numerai_sequence.ensemble`: one a column that `numerai_sequence.predict` returns, in
        order or by name. None for equal ones.
    neutralize : str, sequence of str, or bool, optional
        The features that are taken out of the prediction, as of `numerai_sequence.neutralize`:
        a list, or the name of a feature set; True for all features that the models take. The live
        data need to have them; the models need not.
    proportion : float
        How much of what `neutralize` explains is taken out, such as 0.5.
    features_json : path, optional
        Numerai's feature sets, for a name in `neutralize`. None for those of the shard set of
        `like`.

    Returns
    -------
    path
        `path`.

    Raises
    ------
    FeatureError
        The model was trained on other features, on another order or scale of them, or takes
        another number of them; or one is named twice; or `neutralize` names one that is unknown.
    ValueError
        The features are not known, the suffix is another one, the weights are not one a column, or
        the only model has several values a row and no `ensemble` is asked for.
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
    """Return the models with what the function feeds them; the options are as of `export_predict`.

    Raises
    ------
    FeatureError, ValueError
        A model was trained on something else, or it is not known on what.
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
    """Return a model with what it is fed, all of which is known then."""
    if member.features is None:
        raise ValueError(
            "features: found none, and the model does not remember those that it was trained on; "
            "give the training sequence or the run as like=, or features=sequence.features"
        )
    names = tuple(member.features)
    check_known("feature", names, names, "features")
    asked = replace(member.asked, features=names, inputs=member.known.inputs)
    fed = settle_input(
        member.model,
        member.known,
        asked,
        "features",
        remedy="name those that it was trained on",
        made_remedy="the exported function feeds one array: make what the model takes in the model",
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
    """Return how models are run: on whole eras where one of them needs these."""
    return "era" if any(member.known.batch_by == "era" for member in members) else "rows"


def runs_where(keras: ModuleType) -> str:
    """Say which Keras and which of Numerai's images an exported model of a Keras needs."""
    if is_keras_2(keras):
        return "for tf_keras: choose one of Numerai's images of Python 3.10 to 3.12, which have it"
    return "for Keras 3.10 or newer and Python 3.10 to 3.13: any of Numerai's images"


def _make_upload(
    members: Sequence[Member], packed: Sequence[Packed], weights: list[float] | None, finish: Finish
) -> Upload:
    features = union_of(members)
    # A name that is the same object is in the pickle once.
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
                f"{called}: cannot be loaded again once it is saved: {reason_of(error)}"
            ) from error
        except ValueError as error:
            raise NumeraiSequenceError(f"{called}: {_OTHER_VALUES}") from error
        if not is_same:
            raise NumeraiSequenceError(f"{called}: {_OTHER_VALUES}")


def _is_same(there: Mapping[str, Any], one: dict[str, Any]) -> bool:
    """Say whether the function predicts with a model what the model does by itself."""
    known = {**there["known"], "models": [one], "features": one["features"], "neutral": []}
    digits, expected = trial_digits(len(one["features"])), np.array(one["expected"])
    whole = pd.DataFrame(digits[:, ::-1], columns=one["features"][::-1])
    others = pd.DataFrame(there["trial_others"](one["inputs"]))[::-1]
    model, tolerance = there["rebuild"](one), _TOLERANCE * np.abs(expected).max(axis=0)
    # Neither the order of the columns nor others may matter, nor how the features are written.
    for features in (whole, whole / 4, whole.where(whole != 2)):
        found = there["Live"](features, known, others).columns([model])
        if not (np.abs(found - expected) <= tolerance).all():
            return False
    return True
