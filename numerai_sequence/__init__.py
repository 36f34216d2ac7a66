"""numerai_sequence: train Keras models on Numerai data that is larger than memory.

Write the Parquet files as a shard set once, and feed batches of it to Keras::

    from numerai_sequence import NumeraiSequence, write_shards

    shards = write_shards("train.parquet", "shards/")
    model.fit(NumeraiSequence(shards, batch_size=1000), workers=4)

`sync_shards` keeps the set up to date with newer files. The reference in ``docs/reference.md``
describes every public name.
"""

import importlib
import sys
from typing import Any

from .version import __version__ as __version__

# Each public name is loaded when it is first used: Keras and pandas take seconds to import. The
# types of the names are in __init__.pyi.
_MODULES = {
    "CorruptShardError": "errors",
    "EraError": "errors",
    "EraScores": "scoring.era_scores",
    "FeatureError": "errors",
    "ManifestError": "errors",
    "NumeraiSequence": "feeding.sequence",
    "NumeraiSequenceError": "errors",
    "OutOfMemoryError": "errors",
    "OutputError": "errors",
    "OutputExistsError": "errors",
    "PearsonLoss": "scoring.losses",
    "RankCorrelationLoss": "scoring.losses",
    "RayTasks": "system.executor_tasks",
    "Refresh": "refreshing.refresh",
    "Residual": "batching.residual",
    "Resume": "resuming.resume",
    "ResumeError": "errors",
    "Run": "training.run_folder",
    "ShardSet": "reading.shard_set",
    "SourceError": "errors",
    "Split": "ordering.splits",
    "Unpack": "feeding.unpack",
    "WorkerError": "errors",
    "append_shards": "refreshing.append_shards",
    "connect_ranks": "feeding.ray_ranks",
    "ensemble": "predicting.ensembles",
    "export_predict": "predicting.export",
    "fit_runs": "training.fit_runs",
    "neutralize": "predicting.neutralizing",
    "open_shards": "reading.set_opener",
    "predict": "predicting.predictions",
    "read_run": "training.run_folder",
    "score": "scoring.score_table",
    "split_eras": "ordering.splits",
    "summarize": "scoring.scores",
    "sync_shards": "refreshing.sync_shards",
    "walk_forward": "ordering.splits",
    "write_predictions": "predicting.submission",
    "write_shards": "writing.write_shards",
}

__all__ = sorted(["__version__", *_MODULES])

if sys.modules.get("keras") or sys.modules.get("tf_keras"):
    # So that a model which is loaded before the first use of `predict` keeps its input notes.
    importlib.import_module(".feeding.keras_compat", __name__).carry_inputs()


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
