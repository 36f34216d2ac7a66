"""Write shards: the public function that writes Parquet files as a shard set and opens it."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Executor

from ..format.layout import WriteOptions
from ..reading.set_opener import open_shards
from ..reading.shard_set import PathLike, ShardSet
from .write_arguments import writer_arguments
from .writer import write


def write_shards(
    sources: PathLike | Iterable[PathLike],
    out: PathLike,
    *,
    num_shards: int = WriteOptions.num_shards,
    encoding: str = WriteOptions.encoding,
    mix_eras: int | None = None,
    features: str | Iterable[str] | None = None,
    targets: Iterable[str] | None = None,
    features_json: PathLike | None = None,
    seed: int = WriteOptions.seed,
    missing_feature: str = WriteOptions.missing_feature,
    overwrite: bool = False,
    progress: bool = True,
    executor: Executor | None = None,
) -> ShardSet:
    """Write Parquet files as one shard set, and open it.

    If `out` already holds the set of these files and options, it is only opened; its feature sets
    are updated if they differ. Run an interrupted call again to continue it.

    Parameters
    ----------
    sources : path or iterable of paths
        Numerai's Parquet files. Features may be v5's int8, v4.1's nullable Int8 or v3's float32.
        Several files become one set. They need the same features and targets, in any order. A
        folder, or a pattern such as ``data/*.parquet``, stands for its Parquet files in the order
        of their names, with part-2 before part-10. Folders may be partitioned, such as
        ``era=0001/part-0.parquet``.
    out : path
        Folder of the set. It is created if needed.
    num_shards : int
        Number of shard files. Era e is in shard ``e mod num_shards``; eras without a number are in
        shard 0.
    encoding : {"packed", "int8"}
        Encoding of the features: "packed" stores three features in a byte, "int8" one.
    mix_eras : int, optional
        Number of neighbouring eras of a shard whose rows are mixed when the set is written. Mixed
        rows shuffle well even if they are read in runs. None for as many eras as fit into 256 MB; 1
        keeps each era together.
    features : str or iterable of str, optional
        Feature columns to write, in this order, or the name of a feature set ("medium"). None for
        all columns whose names begin with ``feature``.
    targets : iterable of str, optional
        Target columns to write, in this order. They may be any columns of numbers, such as weights
        of the rows. None for all columns whose names begin with ``target``.
    features_json : path, optional
        Numerai's features.json, whose feature sets are stored in the set. None for the
        ``features.json`` beside the first source. Without such a file, an existing set keeps its
        feature sets.
    seed : int
        Seed for mixing the rows.
    missing_feature : {"error", "middle"}
        Treatment of feature values that are null or NaN: "error" raises a `SourceError`, "middle"
        writes them as 2, the middle of 0 to 4, as Numerai does. The manifest counts these values.
    overwrite : bool
        Replace the set in `out`. The old set stays valid until the new one is complete.
    progress : bool
        Show progress bars on stderr.
    executor : concurrent.futures.Executor, optional
        Executor that reads the sources, and then writes the shard files, many at a time: `RayTasks`
        on machines that share the folders, or a ``ProcessPoolExecutor`` on this one. Each task
        needs as much memory as a call without an executor. The set is the same, bit for bit.

    Returns
    -------
    ShardSet
        The set, open.

    Raises
    ------
    SourceError
        A source is damaged, cannot be read, lacks a column, has changed meanwhile, or holds a value
        that cannot be stored; a row is in two sources, or twice in one; an era is spelled in two
        ways; or features.json is not valid. The message names the file, the column and the row.
    FeatureError
        A feature, feature set or target is unknown.
    OutputExistsError
        `out` holds something else, or another process writes to it.
    OutputError
        The system refuses to write `out`, for example because the disk is full. An existing set is
        unchanged.
    OutOfMemoryError
        Out of memory. Make the same call again to continue. An existing set is unchanged.
    WorkerError
        Ray has lost a task too often. An existing set is unchanged.
    TypeError
        An argument has a wrong type, such as a frame in place of a path, or a set of names, which
        has no order.

    Notes
    -----
    Either every row of the sources is written, once and unchanged, or nothing is written:

    - Ids are in a string column ``id``, or in the only pandas index. They may be empty, but not
      null. An id may appear in several eras, but only once in an era: the era and the id identify a
      row. (`predict` needs each id once.)
    - Eras are strings of any text, and not null. Whole numbers are read as Numerai writes them: 1
      becomes ``"0001"``. Each era has one spelling: ``"1"`` and ``"0001"`` in the same set are an
      error. An era may be in several sources, if they have different rows of it.
    - The column ``data_type`` may have nulls, or be missing.
    - A feature is 0, 1, 2, 3 or 4 as integer, or 0, .25, .5, .75 or 1 as float. In a file with any
      integer feature, or any float that is 2, 3 or 4, all floats are 0 to 4, because pandas turns
      integer columns with missing values into floats.
    - A target is rounded to float32, which is exact for integers up to 2**24. Null becomes NaN. A
      number that is infinite, in the source or as float32, is an error.
    """
    arguments = writer_arguments(
        sources,
        out,
        num_shards=num_shards,
        encoding=encoding,
        mix_eras=mix_eras,
        features=features,
        targets=targets,
        features_json=features_json,
        seed=seed,
        missing_feature=missing_feature,
        overwrite=overwrite,
    )
    return open_shards(write(**arguments, progress=progress, executor=executor))
