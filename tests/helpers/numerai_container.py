"""Numerai's container: run each pickle of a folder as numerai-predict does.

``python numerai_container.py FOLDER`` reads ``live.parquet``, ``benchmarks.parquet`` and each
``NAME.pkl`` there, and writes ``NAME.csv``, or what is wrong to ``NAME.error``. It runs with the
Python of the container, without this package. See https://github.com/numerai/numerai-predict.
"""

import inspect
import sys
import time
import traceback
from pathlib import Path

import pandas as pd

sys.modules["numerai_sequence"] = None  # to import it is an error


def run(path, live, benchmarks):
    """Return the predictions of a pickle, as far as Numerai takes them."""
    predict = pd.read_pickle(path)
    arguments = len(inspect.signature(predict).parameters)
    if arguments not in (1, 2):
        raise TypeError(f"found {arguments} arguments, expected 1 or 2")
    found = predict(live) if arguments == 1 else predict(live, benchmarks)
    if type(found) is not pd.DataFrame:
        raise TypeError(f"found {type(found)}, expected a DataFrame")
    if len(found) == 0 or found.isna().any().any():
        raise ValueError(f"found {len(found)} predictions, or NaN among them")
    if not found.iloc[:, 0].between(0, 1).all():
        raise ValueError("found predictions outside 0..1")
    return found


def main(folder):
    live = pd.read_parquet(folder / "live.parquet")
    benchmarks = pd.read_parquet(folder / "benchmarks.parquet")
    for path in sorted(folder.glob("*.pkl")):
        start = time.monotonic()
        try:
            run(path, live, benchmarks).to_csv(path.with_suffix(".csv"))
        except Exception:
            path.with_suffix(".error").write_text(traceback.format_exc())
        print(f"{path.stem}: {time.monotonic() - start:.1f} s", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
