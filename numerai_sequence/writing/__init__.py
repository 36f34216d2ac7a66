"""Writing: a shard set from Parquet files."""
