"""Measures: one module for each table of results, with a command `main`."""
