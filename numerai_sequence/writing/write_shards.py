"""Write shards: from Parquet files to a shard set that is written and open."""

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

    A set that was written from the same files with the same options is opened as it is; where only
    the feature sets differ, those it tells of are brought up to date.

    Parameters
    ----------
    sources : path or iterable of paths
        Parquet files as Numerai gives them out: v5's int8 features, v4.1's nullable Int8, v3's
        float32; several become one set and need the same features and targets, in any order. A
        folder, or a pattern such as ``data/*.parquet``, stands for its Parquet files in the order
        of their names, where part-2 comes before part-10. The folders may be partitioned, as
        ``era=0001/part-0.parquet``.
    out : path
        The folder of the set.
    num_shards : int
        Era e goes to shard ``e mod num_shards``; eras that are no number to shard 0.
    encoding : {"packed", "int8"}
        Three features a byte, or one.
    mix_eras : int, optional
        Neighbouring eras of a shard whose rows are mixed once for all, so that reading runs of rows
        still shuffles well. None: as many as fit into 256 MB. 1 keeps each era together.
    features : str or iterable of str, optional
        The columns to write, in this order, or the name of a feature set ("medium"); None for all
        named ``feature...``.
    targets : iterable of str, optional
        The columns to write, in this order: any of numbers, such as weights of the rows; None for
        all named ``target...``.
    features_json : path, optional
        Numerai's features.json, whose feature sets the set shall know. None: ``features.json``
        beside the first source; where there is none, a set that is there keeps those it has.
    seed : int
        Of the mixing.
    missing_feature : {"error", "middle"}
        Refuse a feature value that is null or NaN, or write it as the middle: 2 of 0 to 4, as
        Numerai does. The manifest counts these values.
    overwrite : bool
        Replace what is in `out`. The old set stays whole until the new one is.
    progress : bool
        Show progress bars on stderr.
    executor : concurrent.futures.Executor, optional
        Reads the sources, and then writes the shard files, as tasks, many at a time, each with the
        memory that one needs: `RayTasks` on many machines that share the folders, or a
        ``ProcessPoolExecutor`` on this one. The set is the same, bit for bit.

    Returns
    -------
    ShardSet

    Raises
    ------
    SourceError
        A source cannot be read, lacks a column, or holds a value that cannot be kept, with the
        file, the column and the row; it is damaged, or has changed meanwhile; a row is in two
        sources, or twice in one; an era is spelled in two ways; or features.json is not what it
        should be.
    FeatureError
        A feature, feature set or target asked for is unknown.
    OutputExistsError
        `out` holds something else, or another process writes to it.
    OutputError
        The system does not let `out` be written: its disk is full, for example. What was there is
        as it was.
    OutOfMemoryError
        Memory has run out; the same call goes on from there. What was there is as it was.
    WorkerError
        Ray has lost a task too often. What was there is as it was.
    TypeError
        An argument is of another type, such as a frame for a path, or a set, which has no order.

    Notes
    -----
    Every row of the sources is written, once and as it is, or nothing is:

    - Ids are in a string column ``id``, or in the one pandas index. They may be empty, but not
      null. An id may come again in another era, but not in the same one: each row is known by its
      era and id. (`predict` wants each id once.)
    - Eras are strings, too, of any text, and also not null. Whole numbers are read as Numerai
      spells them: 1 is ``"0001"``. An era that is a number has one spelling: ``"1"`` and
      ``"0001"`` are never both there. An era may be in several sources, which then have different
      rows of it.
    - A data type may be null, or that column missing.
    - A feature is exactly 0, 1, 2, 3 or 4 in integers, or 0, .25, .5, .75 or 1 in floats. In a
      file that also has a feature of integers, or a float that is 2, 3 or 4, all floats are 0 to 4:
      pandas makes floats of integers where some are missing.
    - A target is rounded to float32, whose integers are exact up to 2**24; null becomes NaN. A
      number that is infinite, in the source or as float32, is refused.
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
