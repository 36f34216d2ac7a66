"""Tournaments: a check that refuses files of Numerai's other tournaments, by their columns."""

from __future__ import annotations

from .parquet_reader import Parquet

# Their rows are stocks or coins on a date. Rows of the Classic tournament have an id and an era.
_SIGNALS = ("numerai_ticker", "bloomberg_ticker", "composite_figi", "friday_date")


def check_tournament(file: Parquet) -> None:
    """Raise a `SourceError` if a file is one of Numerai Signals or Numerai Crypto."""
    if "era" in file.names:
        return
    found = [name for name in _SIGNALS if name in file.names]
    name = "Signals" if found else "Crypto"
    if not found and {"symbol", "date"} <= set(file.names):
        found = ["symbol"]
    if found:
        raise file.error(
            f"found a Numerai {name} file, expected a file of the Classic tournament, such as "
            "train.parquet; files of Signals and Crypto are not supported",
            column=found[0],
        )
