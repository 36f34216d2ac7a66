"""Submission: write a frame of predictions as a file that Numerai takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from ..extras import load_extra
from ..files import replaced
from ..reading.shards import PathLike

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = load_extra("pandas", "pandas", "predictions")


def write_predictions(frame: pd.DataFrame, path: PathLike) -> Path:
    """Write predictions as CSV or Parquet, whole or not at all, with the features they came from.

    Parameters
    ----------
    frame : pandas.DataFrame
        What `predict` returned: indexed by ``id``, and with ``attrs["features"]``.
    path : path
        ``.csv``, as ``numerapi``'s ``upload_predictions`` takes it; its features go to a second
        file, ``.features.json`` in the place of ``.csv``. Or ``.parquet``, which has them in its
        metadata: ``pandas.read_parquet`` brings back ``attrs["features"]``. What is there is
        replaced.

    Returns
    -------
    path
        `path`.

    Raises
    ------
    ValueError
        The suffix is another one, or the frame lacks its index or its features.
    OutputError
        The system does not let it be written.
    """
    path = Path(path)
    if path.suffix not in (".csv", ".parquet"):
        raise ValueError(f"{path}: found suffix {path.suffix!r}, expected '.csv' or '.parquet'")
    if frame.index.name != "id":
        raise ValueError(f"frame: found index {frame.index.name!r}, expected 'id'")
    features = frame.attrs.get("features")
    if features is None:
        raise ValueError(
            "frame: found no attrs['features'], which some operations of pandas drop; expected the "
            "list of features, such as that of the frame that predict() returned"
        )
    if path.suffix == ".parquet":
        bare = frame.copy(deep=False)
        bare.attrs = {"features": list(features)}
        with replaced(path) as temporary:
            bare.to_parquet(temporary)
        return path
    # Both are whole before one is moved.
    with replaced(path.with_suffix(".features.json")) as described, replaced(path) as temporary:
        described.write_text(json.dumps(list(features), indent=1) + "\n")
        frame.to_csv(temporary)
    return path
