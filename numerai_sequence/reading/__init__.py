"""Reading: from a shard set to rows."""
