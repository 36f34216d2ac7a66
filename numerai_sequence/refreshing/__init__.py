"""Refreshing: updates of a shard set from newer Parquet files."""
