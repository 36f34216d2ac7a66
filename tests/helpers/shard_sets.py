"""Sets: small shard sets of the tables of `tables`, and what is in their files."""

from __future__ import annotations

from numerai_tables import write_source

from numerai_sequence import write_shards


def write_set(folder, *, num_shards=3, mix_eras=None, encoding="packed", seed=0, **table):
    """Write `numerai_table` as a shard set, into a folder and beside its source; return its own."""
    source = write_source(folder / "train.parquet", **table)
    options = {"num_shards": num_shards, "mix_eras": mix_eras, "encoding": encoding, "seed": seed}
    write_shards(source, folder / "set", progress=False, **options).close()
    return folder / "set"


def contents(folder):
    """The bytes of each file of a folder, but not of folders in it."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
