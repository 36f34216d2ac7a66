"""Contenders: ways to turn one Parquet file into the batches of a fit."""
