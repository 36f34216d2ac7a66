"""Predicting: predictions of models, ensembles, and functions for Numerai's model upload."""
