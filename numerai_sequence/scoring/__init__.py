"""Scoring: losses, and scores of predictions by era."""
