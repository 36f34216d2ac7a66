"""Batching: from rows to the arrays of a batch."""
