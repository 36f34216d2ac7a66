"""Ordering: choose and shuffle eras and rows by their numbers, without files and without Keras."""
