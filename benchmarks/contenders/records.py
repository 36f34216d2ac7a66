"""Records: TFRecord files of one row each, and the pipeline that tf.data's guide builds on them."""

from pathlib import Path
from typing import Any

import tensorflow as tf
from harness.input_files import SEED, row_major

FILES = 16
SHUFFLE_ROWS = 20_000  # of the shuffle buffer: 20 batches


def prepare(parquet: Path, folder: Path) -> None:
    """Deal the rows out to the files; a row's int8 features are one bytes feature."""
    folder.mkdir()
    paths = [str(folder / f"{number:02}.tfrecord") for number in range(FILES)]
    writers = [tf.io.TFRecordWriter(path) for path in paths]
    for rows, y in row_major(parquet):
        for number, (row, target) in enumerate(zip(rows, y.tolist(), strict=True)):
            writers[number % FILES].write(record(row.tobytes(), target))
    for writer in writers:
        writer.close()


def record(row: bytes, target: float) -> bytes:
    """Return one row as a serialised ``tf.train.Example``."""
    x = tf.train.Feature(bytes_list=tf.train.BytesList(value=[row]))
    y = tf.train.Feature(float_list=tf.train.FloatList(value=[target]))
    features = tf.train.Features(feature={"x": x, "y": y})
    return tf.train.Example(features=features).SerializeToString()


def pipeline(folder: Path, batch_size: int, dtype: str, *, threads: int | None = None) -> Any:
    """Return batches: files interleaved, rows shuffled in a buffer, whole batches parsed."""
    paths = sorted(map(str, folder.glob("*.tfrecord")))
    kinds = {"x": tf.io.FixedLenFeature([], tf.string), "y": tf.io.FixedLenFeature([], "float")}
    first = next(tf.data.TFRecordDataset(paths[:1]).as_numpy_iterator())
    features = len(tf.io.parse_single_example(first, kinds)["x"].numpy())

    def parse(serialised: Any) -> tuple[Any, Any]:
        example = tf.io.parse_example(serialised, kinds)
        x = tf.ensure_shape(tf.io.decode_raw(example["x"], tf.int8), (None, features))
        return (x if dtype == "int8" else tf.cast(x, tf.float32) * 0.25), example["y"]

    auto = tf.data.AUTOTUNE
    files = tf.data.Dataset.from_tensor_slices(paths).shuffle(FILES, seed=SEED)
    rows = files.interleave(
        tf.data.TFRecordDataset, FILES, num_parallel_calls=auto, deterministic=False
    )
    batches = rows.shuffle(SHUFFLE_ROWS, seed=SEED).batch(batch_size)
    batches = batches.map(parse, num_parallel_calls=auto, deterministic=False).prefetch(auto)
    options = tf.data.Options()
    if threads:
        options.threading.private_threadpool_size = threads
    return batches.with_options(options)
