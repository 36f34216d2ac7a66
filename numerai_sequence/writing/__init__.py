"""Writing: from Parquet files to a shard set."""
