"""Typing: a program that uses every public name passes mypy --strict, and mistakes are found."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import numerai_sequence

PROGRAM = """
from __future__ import annotations

from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import assert_type

import numerai_sequence
from numerai_sequence import (
    CorruptShardError,
    EraError,
    EraScores,
    FeatureError,
    ManifestError,
    NumeraiSequence,
    NumeraiSequenceError,
    OutOfMemoryError,
    OutputError,
    OutputExistsError,
    PearsonLoss,
    RankCorrelationLoss,
    RayTasks,
    Refresh,
    Residual,
    Resume,
    ResumeError,
    Run,
    ShardSet,
    SourceError,
    Split,
    Unpack,
    WorkerError,
    append_shards,
    connect_ranks,
    ensemble,
    export_predict,
    fit_runs,
    neutralize,
    open_shards,
    predict,
    read_run,
    score,
    split_eras,
    summarize,
    sync_shards,
    walk_forward,
    write_predictions,
    write_shards,
)


def write(executor: ProcessPoolExecutor) -> ShardSet:
    write_shards("train.parquet", "shards/")
    return write_shards(
        [Path("train.parquet"), "validation.parquet"],
        Path("shards"),
        num_shards=16,
        encoding="packed",
        mix_eras=4,
        features="medium",
        targets=["target"],
        features_json="features.json",
        seed=0,
        overwrite=True,
        progress=False,
        executor=executor,
    )


def refresh(shards: ShardSet) -> None:
    plan: Refresh = append_shards(shards, ["validation.parquet"], dry_run=True, progress=False)
    assert_type(plan.eras, tuple[str, ...])
    assert_type(plan.filled, dict[str, int])
    assert_type(plan.target_alias, tuple[str, ...] | None)
    if plan.is_needed and plan.bytes < plan.set_bytes:
        print(append_shards("shards/", Path("validation.parquet")))
    newer: ShardSet = sync_shards(["train.parquet"], "shards/", missing_feature="middle")
    print(newer.rows)


def look() -> None:
    with open_shards("shards/") as shards:
        assert_type(shards, ShardSet)
        assert_type(shards[::4], ShardSet)
        assert_type(shards.eras, list[str])
        assert_type(shards.features, tuple[str, ...])
        assert_type(shards.targets, tuple[str, ...])
        assert_type(shards.feature_sets, dict[str, tuple[str, ...]])
        assert_type(shards.target_alias, tuple[str, ...])
        assert_type(shards.missing, dict[str, int])
        assert_type(shards.paths, list[Path])
        assert_type(shards.rows, int)
        shards.column("id")
        shards.verify(progress=True)
    open_shards([Path("shards/shard-00.arrow")]).close()


def weigh(eras: Any, y: Any) -> Any:
    return np.ones(len(eras))


def runs(shards: ShardSet, build: Any) -> list[Path]:
    fit_runs(build, "shards/", Path("runs"), target=["target", "target_ender_20"], seeds=[1, 5])
    fit_runs(build, shards, "walk", features="medium", step=156, window=400, seeds=2, patience=2)
    return fit_runs(build, shards, "final", final="runs", start=Path("runs"), epochs=2, workers=2)


def train(model: Any, shards: ShardSet) -> None:
    split = split_eras(shards.eras, validation=0.2, purge=8)
    assert_type(split, Split)
    folds: list[Split] = walk_forward(shards.eras, window=None, step=156, purge=8)
    sequence = NumeraiSequence(
        shards,
        batch_size=1000,
        target={"main": "target", "aux": ["target_20", "target_60"]},
        features=["feature_a"],
        eras=split.train,
        data_type="train",
        missing_target="drop",
        sample_weight={era: 1.0 for era in split.train},
        batch_by="rows",
        shuffle=True,
        seed=0,
        run_rows=None,
        dtype="int8",
        drop_remainder=True,
        rank=0,
        world_size=2,
        memory_budget="512MB",
        paging="auto",
        verify=True,
        workers=4,
        use_multiprocessing=False,
        max_queue_size=10,
    )
    sequence.sample_weight = weigh
    assert_type(sequence.features, tuple[str, ...])
    assert_type(len(sequence), int)
    assert_type(sequence.run_rows, int)
    NumeraiSequence("shards/", 1, eras="0001-", target=None, batch_by="era")
    NumeraiSequence(["shards/shard-00.arrow"], eras=lambda era: era > "0001", target=["target"])
    validation = NumeraiSequence(shards, eras=folds[-1].validation)
    run: Run = read_run("run/")
    assert_type(run.features, tuple[str, ...])
    assert_type(run.batch_by, str)
    ids = sequence.column("id", batch=0)
    residual = Residual("target", ["a.parquet", "b.csv"], model="v53", proportion=0.5)
    benchmarks = {"benchmarks": (Path("a.parquet"), ["v53"])}
    others = NumeraiSequence(shards, target=["target", residual], inputs=benchmarks)
    assert_type(others.inputs, dict[str, tuple[str, ...]])
    scores = EraScores(
        validation,
        like=sequence,
        target="target",
        output="main",
        meta_model="meta",
        benchmarks=["ours", "theirs"],
        exposure=True,
        csv="scores.csv",
        png=Path("scores.png"),
        progress=False,
    )
    model.compile("adam", PearsonLoss())
    model.compile("adam", RankCorrelationLoss(temperature=0.03))
    model.fit(sequence, callbacks=[scores, Resume("state/", every=100)])
    assert_type(Unpack.of(sequence, sequence, name="rows"), Unpack)
    scores.score(model)
    frame = predict(
        model,
        "live.parquet",
        like=run,
        features=sequence.features,
        inputs=benchmarks,
        eras="0001-",
        data_type="live",
        output="main",
        dtype="int8",
        ranked=True,
        batch_size=100,
        batch_by="rows",
        memory_budget=1 << 30,
        progress=False,
    )
    frame = predict(["a/", model], shards, with_era=True, progress=False)
    frame = ensemble(frame, [1, 0.5], by="gaussian", eras=shards)
    left = neutralize(frame, shards, features="medium", proportion=0.5, progress=False)
    table = score(
        {"all": frame, "half": left},
        "validation.parquet",
        target="target_ender_60",
        eras="0575-",
        data_type="validation",
        meta_model="meta_model.parquet",
        benchmarks=["benchmarks.parquet", frame],
        exposure=True,
        neutral=["feature_a"],
        csv="scores.csv",
        png=Path("scores.png"),
        progress=False,
    )
    summarize(table)
    summarize(score([frame["prediction"], "b.csv"], shards, neutral=True)["corr"])
    assert_type(write_predictions(frame, "predictions.csv"), Path)
    export_predict(model, "predict.pkl", like=sequence, batch_by="era")
    export_predict(
        model, "predict.pkl", features=sequence.features, output="main", dtype="int8", ranked=True
    )
    export_predict(
        {"a": model, "b": "run/"},
        "predict.pkl",
        ensemble="gaussian",
        weights={"a": 1, "b": 0.5},
        neutralize="medium",
        proportion=0.5,
        features_json=Path("features.json"),
    )
    export_predict(["run/"], "predict.pkl", neutralize=shards.features, weights=[1])
    export_predict(Path("runs"), "predict.pkl", neutralize=True)


def spread(sources: list[Path]) -> tuple[int, int]:
    executor: Executor = RayTasks(num_cpus=4, num_gpus=0.5, max_retries=2)
    write_shards(sources, "shards/", executor=executor)
    assert_type(RayTasks().submit(len, "abc").result(), int)
    return connect_ranks()


def tell(error: NumeraiSequenceError) -> tuple[str, Any]:
    match error:
        case SourceError():
            return error.message, (error.path, error.column, error.row)
        case OutputExistsError() | OutputError() | OutOfMemoryError():
            return error.message, error.path
        case ManifestError() | CorruptShardError() | ResumeError():
            return error.message, (error.path, error.found, error.expected)
        case EraError():
            return error.message, error.eras
        case FeatureError():
            return error.message, error.names
        case WorkerError():
            return error.message, (error.pid, error.exitcode)
    return f"{numerai_sequence.__version__}: {error}", None


def mistakes(model: Any, shards: ShardSet) -> None:
    write_shards("train.parquet", "shards/", encoding=3)  # arg-type
    write_shards("train.parquet", "shards/", shards=16)  # call-arg
    open_shards(3)  # arg-type
    NumeraiSequence(shards, batch_size="1000")  # arg-type
    NumeraiSequence(shards, batchsize=1000)  # call-arg
    split_eras(shards.eras, validation=0.2)  # call-arg
    walk_forward(shards.eras, window=None, step="156", purge=8)  # arg-type
    Unpack.of()  # call-arg
    Resume("state/", 100)  # call-arg
    predict(model, "live.parquet", ranked="yes")  # arg-type
    export_predict(model, "predict.pkl", shards)  # call-arg
    score("predictions.csv", shards, neutrals=True)  # call-arg
    numerai_sequence.write_shard("train.parquet", "shards/")  # attr-defined
"""


@pytest.mark.slow
def test_strict_types_hold_and_mistakes_are_found(tmp_path):
    """Each mistake says in a comment as what; nothing else is one."""
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", "cache", "program.py"]
    # Where it is installed to be edited, mypy does not find it by itself.
    package = Path(numerai_sequence.__file__).parents[1]
    shown = subprocess.run(
        command,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(package)},
    ).stdout
    found = re.findall(r"^program.py:(\d+): error: .*\[(.+)\]$", shown, re.MULTILINE)
    lines = enumerate(PROGRAM.splitlines(), 1)
    wrong = [(str(number), line.split("  # ")[1]) for number, line in lines if "  # " in line]
    assert found == wrong, shown
    assert len(wrong) == 13
    assert f"Found {len(wrong)} errors in 1 file" in shown


def test_the_program_uses_every_public_name():
    _, program = PROGRAM.split("\n)\n", 1)  # what follows the imports
    for name in numerai_sequence.__all__:
        assert re.search(rf"\b{name}\b", program), name
