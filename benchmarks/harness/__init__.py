"""Harness: run processes from a known state, sample them, and report what was measured."""
