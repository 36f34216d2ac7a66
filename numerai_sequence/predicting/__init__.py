"""Predicting: from a model to predictions, and to what Numerai runs."""
