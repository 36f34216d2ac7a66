"""Run folder: the folder that training writes, with a model and its description in run.json."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..checks import as_dict, as_names, as_text, reason, short
from ..errors import ManifestError, NumeraiSequenceError
from ..format.encoding import DTYPES
from ..ordering.batch_units import BATCH_BY
from ..system.files import replaced
from ..writing.parquet_folders import natural

RUN = "run.json"
MODEL = "model.keras"
CHECKPOINT = "checkpoint.keras"  # while it is trained
FORMAT = "numerai_sequence.run"


@dataclass(frozen=True)
class Run:
    """The description of a trained model, as it is in run.json.

    Attributes
    ----------
    asked : dict
        Shard set and options of the run. The same ones make the same run.
    features : tuple of str
        Features that the model takes, in order.
    dtype : str
        Type of the features.
    output : str or None
        Name of the output that is the prediction. None if the model has one output.
    train, validation : tuple of str
        Training eras and validation eras.
    scores : dict of str to float
        Summaries of the scores over the validation eras.
    history : dict of str to list of float
        Logs of ``fit``, a value for each epoch.
    versions : dict of str to str
        Versions of this package and of Keras, and Keras's backend.
    batch_by : {"rows", "era"}
        Unit of the batches in training.
    """

    asked: dict[str, Any]
    features: tuple[str, ...]
    dtype: str
    output: str | None
    train: tuple[str, ...]
    validation: tuple[str, ...]
    scores: dict[str, float]
    history: dict[str, list[float]]
    versions: dict[str, str]
    batch_by: str = "rows"


def write_run(run: Run, folder: Path) -> None:
    """Write run.json, whole or not at all: the folder is then a finished run."""
    with replaced(folder / RUN) as path:
        text = json.dumps({"format": FORMAT, **asdict(run)}, indent=1) + "\n"
        path.write_text(text, encoding="utf-8", newline="\n")


def read_run(folder: str | os.PathLike[str]) -> Run:
    """Read the options, eras and scores of a run of `fit_runs` or ``numerai-sequence train``.

    Give the `Run` to `predict`, `export_predict` or `EraScores` as ``like=``: the model then gets
    the same inputs as in training. The model itself is ``model.keras`` in the folder.

    Parameters
    ----------
    folder : path
        Folder of one run. In a folder of several runs, such as the folds of a walk forward, name
        one of them.

    Returns
    -------
    Run
        The description of the run.

    Raises
    ------
    ManifestError
        ``run.json`` is missing, damaged, or written by a later version of the package.
    """
    path = Path(folder) / RUN
    try:
        document = as_dict(json.loads(path.read_bytes()))
        if document.pop("format", None) != FORMAT:
            raise ValueError(f"format is not {FORMAT!r}")
        _check_known(path, document)
        as_dict(as_dict(document["asked"])["options"])
        names = ("features", "train", "validation")
        output = document["output"]
        return Run(
            **{
                **document,
                **{name: as_names(document[name]) for name in names},
                "dtype": as_text(document["dtype"]),
                "output": None if output is None else as_text(output),
                "batch_by": as_text(document.get("batch_by", Run.batch_by)),
            }
        )
    except OSError as error:
        several = runs_in(Path(folder))
        one = (
            f"; found {len(several)} runs in it: name one, such as {several[0]}" if several else ""
        )
        raise ManifestError(
            f"{path}: {error.strerror}; expected a folder that 'numerai-sequence train' wrote{one}",
            path=path,
            expected=FORMAT,
        ) from error
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ManifestError(
            f"{path}: damaged: {reason(error)}; train again with --overwrite",
            path=path,
            expected=FORMAT,
        ) from error


def _check_known(path: Path, document: dict[str, Any]) -> None:
    """Refuse entries of a later version of the package, whose model may need other inputs."""
    for name in document:
        _check_one_of(path, "key", name, tuple(Run.__dataclass_fields__))
    _check_one_of(path, "dtype", document["dtype"], DTYPES)
    _check_one_of(path, "batch_by", document.get("batch_by", Run.batch_by), tuple(BATCH_BY))


def _check_one_of(path: Path, what: str, found: Any, known: tuple[str, ...]) -> None:
    if as_text(found) not in known:
        raise ManifestError(
            f"{path}: found {what} {short(found)}, expected one of {', '.join(known)}; "
            "upgrade numerai_sequence",
            path=path,
            found=short(found),
            expected=known,
        )


def find_run(model: Path) -> tuple[Path, Run | None]:
    """Return the file of a model, and its run if it has one.

    Parameters
    ----------
    model : path
        The folder of a run, or the file of a model, which may be in one.

    Raises
    ------
    NumeraiSequenceError
        There is no such file.
    """
    folder, path = (model, model / MODEL) if model.is_dir() else (model.parent, model)
    run = read_run(folder) if model.is_dir() or (folder / RUN).exists() else None
    if not path.is_file():
        raise NumeraiSequenceError(
            f"{path}: no such file; expected a model that Keras saved, or the folder of a run"
        )
    return path, run


def runs_in(folder: Path) -> list[Path]:
    """Return the folders of the finished runs in a folder of several runs, in order of their names.

    Numbers in names are compared as numbers: seed-2 comes before seed-10.
    """
    if (folder / RUN).exists() or (folder / MODEL).exists():
        return []
    return sorted((path.parent for path in folder.glob(f"*/{RUN}")), key=natural)


def unfinished_in(folder: Path) -> list[Path]:
    """Return the folders of unfinished runs in a folder."""
    folders = {path.parent for name in (CHECKPOINT, MODEL) for path in folder.glob(f"*/{name}")}
    return sorted(filter(is_unfinished, folders), key=natural)


def is_unfinished(folder: Path) -> bool:
    """Return whether a folder has an unfinished run."""
    begun = (folder / CHECKPOINT).exists() or (folder / MODEL).exists()
    return begun and not (folder / RUN).exists()


def save_model(model: Any, folder: Path) -> None:
    """Save a model into the folder of a run, whole or not at all."""
    with replaced(folder / MODEL) as path:
        model.save(str(path))
