"""Upload: the time and memory of an exported ensemble under Numerai's limits, 4 GB and one core.

The pickle holds ten networks of all features (256-64, the last one 1024-512), neutralized to all
features. Each given Python, such as one with the versions of a Numerai image, calls it on live data
as Numerai does. The process has a memory group of 4 GB, and is bound to one core. The measure
writes ``upload.json`` and ``upload.md``.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
from harness import report
from harness.process import BENCHMARKS, MB, Run, measure

FOLDER = click.Path(file_okay=False, path_type=Path)
LIMIT_BYTES, LIMIT_SECONDS = 4 << 30, 600
COLUMNS = {
    "python": "python",
    "tensorflow": "tensorflow",
    "loading s": "load_seconds",
    "calling s": "call_seconds",
    "in all s": "all_seconds",
    "peak RSS (VmHWM) MB": "vm_hwm_bytes",
}
# This code runs without this package, with the packages of the image.
CALL = f"""
import importlib.metadata, os, platform, sys
sys.path.insert(0, {str(BENCHMARKS)!r})
sys.modules["numerai_sequence"] = None
from pathlib import Path
from harness.events import note
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
folder, events = Path(sys.argv[1]), open(sys.argv[3], "a")
note(events, "start")
import pandas as pd
predict = pd.read_pickle(folder / "predict.pkl")
live = pd.read_parquet(folder / "live.parquet")
note(events, "loaded")
found = predict(live, live[["era"]])
assert found["prediction"].between(0, 1).all() and found["prediction"].nunique() > len(found) / 2
versions = {{"python": platform.python_version()}}
versions["tensorflow"] = importlib.metadata.version("tensorflow")
note(events, "end", **versions)
"""


def write_live(path: Path, rows: int, features: int) -> None:
    """Write live data: one era of random features."""
    names = [f"feature_{number:04d}" for number in range(features)]
    digits = np.random.default_rng(0).integers(0, 5, (rows, features)).astype(np.int8)
    ids = pd.Index([f"n{number:015x}" for number in range(rows)], name="id")
    frame = pd.DataFrame(digits, ids, names)
    frame.insert(0, "era", "X")
    frame.to_parquet(path)


def write_upload(folder: Path, models: int) -> None:
    """Write the pickle."""
    import keras

    from numerai_sequence import export_predict

    names = pd.read_parquet(folder / "live.parquet").columns[1:].tolist()
    layers = keras.layers
    ensemble = {}
    for seed in range(models):
        keras.utils.set_random_seed(seed)
        first, second = (1024, 512) if seed == models - 1 else (256, 64)
        hidden = [layers.Dense(first, "relu"), layers.Dense(second, "relu")]
        ensemble[f"seed-{seed}"] = keras.Sequential(
            [keras.Input((len(names),)), *hidden, layers.Dense(1)]
        )
    options = {"features": names, "dtype": "float32", "batch_by": "rows"}
    export_predict(ensemble, folder / "predict.pkl", neutralize=True, proportion=0.5, **options)


def summary(run: Run) -> dict[str, Any]:
    """Return the run as one JSON object."""
    return {
        "outcome": run.outcome,
        "limit_bytes": run.limit_bytes,
        "python": run.noted("end", "python"),
        "tensorflow": run.noted("end", "tensorflow"),
        "load_seconds": run.seconds("start", "loaded"),
        "call_seconds": run.seconds("loaded", "end"),
        "all_seconds": run.seconds("start", "end"),
        "vm_hwm_bytes": run.peak("VmHWM"),
    }


def cell(key: str, value: Any) -> str:
    """Return the text of a value in the table."""
    if value is None or isinstance(value, str):
        return value or "-"
    return f"{value / MB:,.0f}" if key.endswith("_bytes") else f"{value:,.1f}"


def markdown(summaries: list[dict[str, Any]]) -> str:
    """Return the results as a Markdown table, with the outcome of failed runs."""
    rows = []
    for one in summaries:
        cells = [cell(key, one[key]) for key in COLUMNS.values()]
        rows.append([one["outcome"], *cells])
    return report.table(["", *COLUMNS], rows)


@click.command()
@click.option("--python", "pythons", multiple=True, help="Python of an image; repeatable.")
@click.option("--rows", default=6700, show_default=True, help="Live rows.")
@click.option("--features", default=3555, show_default=True)
@click.option("--models", default=10, show_default=True)
@click.option("--work", type=FOLDER, help="Not needed.")
@click.option("--out", type=FOLDER, default=report.RESULTS, help="Folder for the results.")
def main(
    pythons: tuple[str, ...], rows: int, features: int, models: int, work: Path | None, out: Path
) -> None:
    """Measure the time and memory of an exported ensemble under Numerai's limits."""
    with tempfile.TemporaryDirectory(dir=work) as temporary:
        folder = Path(temporary)
        write_live(folder / "live.parquet", rows, features)
        write_upload(folder, models)
        size = (folder / "predict.pkl").stat().st_size
        runs = [
            measure(
                python,
                [python, "-c", CALL, str(folder)],
                limit_bytes=LIMIT_BYTES,
                time_limit_seconds=LIMIT_SECONDS,
            )
            for python in pythons or [sys.executable]
        ]
    summaries = [summary(run) for run in runs]
    parameters = {"rows": rows, "features": features, "models": models, "pickle_bytes": size}
    document = {"machine": report.machine({}), "parameters": parameters, "runs": summaries}
    report.write_json(out / "upload.json", document)
    (out / "upload.md").write_text(markdown(summaries))
    click.echo(f"{size / MB:,.0f} MB\n{markdown(summaries)}")
