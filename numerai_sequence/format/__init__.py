"""Format: the files of a shard set, as bytes and as JSON."""
