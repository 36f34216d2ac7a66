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

    If `out` already holds the set of these sources and options, the set is only opened, and its
    feature sets are updated if they differ. To continue an interrupted call, make it again.

    Parameters
    ----------
    sources : path or iterable of paths
        Numerai's Parquet files, which become one set. Each is a file, a folder, or a pattern such
        as ``data/*.parquet``. A folder may be partitioned, such as ``era=0001/part-0.parquet``. The
        files of a folder or a pattern are sorted by name, with part-2 before part-10. All files
        need the same features and targets, in any order. Features are int8 (v5), nullable Int8
        (v4.1) or float32 (v3).
    out : path
        Folder of the set. It is created if needed.
    num_shards : int
        Number of shard files. Era e is in shard ``e mod num_shards``; eras without a number are in
        shard 0.
    encoding : {"packed", "int8"}
        Encoding of the features. "packed" stores three features per byte, "int8" one.
    mix_eras : int, optional
        Number of neighbouring eras of a shard whose rows are mixed when the set is written. None
        means as many eras as fit into 256 MB. 1 keeps the rows of each era together, for batches of
        whole eras.
    features : str or iterable of str, optional
        Feature columns to write, in this order, or the name of a feature set, such as "medium".
        None means all columns whose names begin with ``feature``.
    targets : iterable of str, optional
        Target columns to write, in this order. Any column of numbers is allowed, such as weights of
        the rows. None means all columns whose names begin with ``target``.
    features_json : path, optional
        Numerai's features.json. Its feature sets are stored in the shard set. None means the file
        ``features.json`` in the folder of the first source. If there is no such file, an existing
        set keeps its feature sets.
    seed : int
        Seed for mixing the rows.
    missing_feature : {"error", "middle"}
        Treatment of feature values that are null or NaN. "error" raises a `SourceError`. "middle"
        writes 2, the middle of 0 to 4, as Numerai does. The manifest has the number of such values.
    overwrite : bool
        Replace the set in `out`, or write beside other files. The old set stays valid until the new
        one is complete.
    progress : bool
        Show progress bars on stderr.
    executor : concurrent.futures.Executor, optional
        Executor that reads several sources, and then writes several shard files, at the same time.
        Use a ``ProcessPoolExecutor`` on one machine, or `RayTasks` on machines with shared folders.
        Each task needs as much memory as a call without an executor. The set is the same, bit for
        bit.

    Returns
    -------
    ShardSet
        The set, open.

    Raises
    ------
    SourceError
        A source is damaged, cannot be read, or changes during the call. A source lacks a column. A
        value cannot be stored. A row appears twice. An era has two spellings. features.json is not
        valid. The message names the file, the column and the row.
    FeatureError
        A feature, feature set or target is unknown.
    OutputExistsError
        `out` holds another set or other files, or another process writes to it.
    OutputError
        The system refuses to write `out`, for example because the disk is full. An existing set is
        unchanged.
    OutOfMemoryError
        There is not enough memory. Make the same call again to continue. An existing set is
        unchanged.
    WorkerError
        Ray has lost a task too often. An existing set is unchanged.
    TypeError
        An argument has a wrong type, such as a DataFrame in place of a path. Names must be in a
        list, because a Python set has no order.

    Notes
    -----
    The call writes every row of the sources once, or it writes nothing. These rules hold:

    - Ids are in a string column ``id``, or in the only pandas index. An id may be empty, but not
      null. It may appear in several eras, but only once in each era. (`predict` needs each id
      once.)
    - Eras are strings of any text, and not null. A whole number gets Numerai's spelling, so 1
      becomes ``"0001"``. Each era has one spelling, so ``"1"`` and ``"0001"`` in the same set raise
      an error. Several sources may have different rows of the same era.
    - The column ``data_type`` may have nulls, or be missing.
    - An integer feature is 0, 1, 2, 3 or 4. A float feature is 0, .25, .5, .75 or 1.
    - pandas turns integer columns with missing values into floats from 0 to 4. So in a file with an
      integer feature, or with a float of 2, 3 or 4, all float features are read as 0 to 4.
    - A target is rounded to float32, which is exact for integers up to 2**24. Null becomes NaN. An
      infinite number raises an error, also if it is infinite only as float32.
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
