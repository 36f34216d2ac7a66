"""Refreshing: from newer Parquet files and a shard set to what is new in them."""
