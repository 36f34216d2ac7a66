"""Batching: read the selected rows, and turn them into the arrays of batches."""
