"""The types of the public names, which __init__.py loads when they are first used."""

from .batching.residual import Residual
from .errors import (
    CorruptShardError,
    EraError,
    FeatureError,
    ManifestError,
    NumeraiSequenceError,
    OutOfMemoryError,
    OutputError,
    OutputExistsError,
    ResumeError,
    SourceError,
    WorkerError,
)
from .feeding.ray_ranks import connect_ranks
from .feeding.sequence import NumeraiSequence
from .feeding.unpack import Unpack
from .ordering.splits import Split, split_eras, walk_forward
from .predicting.ensembles import ensemble
from .predicting.export import export_predict
from .predicting.neutralizing import neutralize
from .predicting.predictions import predict
from .predicting.submission import write_predictions
from .reading.set_opener import open_shards
from .reading.shard_set import ShardSet
from .refreshing.append_shards import append_shards
from .refreshing.refresh import Refresh
from .refreshing.sync_shards import sync_shards
from .resuming.resume import Resume
from .scoring.era_scores import EraScores
from .scoring.losses import PearsonLoss, RankCorrelationLoss
from .scoring.score_table import score
from .scoring.scores import summarize
from .system.executor_tasks import RayTasks
from .training.fit_runs import fit_runs
from .training.run_folder import Run, read_run
from .version import __version__
from .writing.write_shards import write_shards

__all__ = [
    "CorruptShardError",
    "EraError",
    "EraScores",
    "FeatureError",
    "ManifestError",
    "NumeraiSequence",
    "NumeraiSequenceError",
    "OutOfMemoryError",
    "OutputError",
    "OutputExistsError",
    "PearsonLoss",
    "RankCorrelationLoss",
    "RayTasks",
    "Refresh",
    "Residual",
    "Resume",
    "ResumeError",
    "Run",
    "ShardSet",
    "SourceError",
    "Split",
    "Unpack",
    "WorkerError",
    "__version__",
    "append_shards",
    "connect_ranks",
    "ensemble",
    "export_predict",
    "fit_runs",
    "neutralize",
    "open_shards",
    "predict",
    "read_run",
    "score",
    "split_eras",
    "summarize",
    "sync_shards",
    "walk_forward",
    "write_predictions",
    "write_shards",
]
