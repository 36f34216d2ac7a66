"""Scoring: from a model and a sequence to losses, and to scores of eras."""
