"""Format: what is on the disk, as bytes and as JSON, and nothing of how it gets there."""
