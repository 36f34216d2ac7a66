"""Resuming: an interrupted `fit` continues from the state that it saved."""
