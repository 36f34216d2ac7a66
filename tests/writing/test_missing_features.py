"""Missing: a feature value that is null or NaN is refused, or is the middle."""

from __future__ import annotations

import json
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from numerai_tables import numerai_table, row_digits, write_source

from numerai_sequence import SourceError, append_shards, open_shards, sync_shards, write_shards
from numerai_sequence.commands.main import main
from numerai_sequence.format.layout import WriteOptions
from numerai_sequence.writing import writer as writer_module

ROWS, FEATURES, GROUP = 137, 14, 50
NAMES = [f"feature_{feature:03d}" for feature in range(FEATURES)]
DIGITS = row_digits(np.arange(ROWS), FEATURES)
LACKING = np.random.default_rng(0).random(DIGITS.shape) < 0.05
FILLED = np.where(LACKING, 2, DIGITS)


def column_of(digits, values, lacking):
    """A column of integers, or of floats ("float32" as they are, "float32/4" scaled)."""
    kind, scaled, _ = values.partition("/")
    numbers = (digits / 4 if scaled else digits).astype(kind)
    return pa.array(numbers, mask=lacking)


def lacking_table(values="int8", digits=DIGITS, lacking=LACKING, columns=range(FEATURES)):
    """A table of which some columns are written so; `lacking` says where it has nulls."""
    table = numerai_table(ROWS, features=FEATURES)
    for column in columns:
        mask = None if lacking is None else lacking[:, column]
        replaced = column_of(digits[:, column], values, mask)
        table = with_column(table, NAMES[column], replaced)
    return table


def with_column(table, name, column):
    return table.set_column(table.schema.get_field_index(name), name, column)


def with_nan(table, name):
    """The same with NaN for each null of a column of floats."""
    return with_column(table, name, pa.array(table[name].to_numpy()))


def save(table, path, **options):
    pq.write_table(table, path, row_group_size=GROUP, **options)
    return path


def digits_of(shards):
    """The features of a set, in the order of the ids."""
    rows = {}
    for place in range(len(shards.paths)):
        for batch in shards.batches(place):
            features = batch["features"].to_numpy_ndarray()
            rows |= dict(zip(batch["id"].to_pylist(), features, strict=True))
    return np.stack([rows[id_] for id_ in sorted(rows)])


def written(source, folder, **options):
    """The digits of the set that is written, and how many values were filled in."""
    options = {"encoding": "int8", "num_shards": 3, "progress": False, **options}
    with write_shards(source, folder, **options) as shards:
        return digits_of(shards), sum(file.filled for file in shards.manifest.sources)


@pytest.mark.parametrize("nan", ["null", "nan"])
@pytest.mark.parametrize("statistics", [True, False])
@pytest.mark.parametrize(
    "values", ["float16", "float16/4", "float32", "float32/4", "float64", "float64/4"]
)
def test_missing_floats_of_either_scale_are_the_middle(tmp_path, values, statistics, nan):
    table = lacking_table(values)
    for name in NAMES[::2] if nan == "nan" else ():  # nulls and NaN in one file
        table = with_nan(table, name)
    source = save(table, tmp_path / "a.parquet", write_statistics=statistics)
    found, filled = written(source, tmp_path / "set", missing_feature="middle")
    np.testing.assert_array_equal(found, FILLED)
    assert filled == LACKING.sum()


@pytest.mark.parametrize("values", ["int8", "uint8", "int64"])
def test_missing_integers_are_the_middle(tmp_path, monkeypatch, values):
    monkeypatch.setattr(writer_module, "BLOCK_BYTES", 4 * GROUP)  # some columns at a time
    source = save(lacking_table(values), tmp_path / "a.parquet")
    found, filled = written(source, tmp_path / "set", missing_feature="middle")
    np.testing.assert_array_equal(found, FILLED)
    assert filled == LACKING.sum()


def test_a_column_without_any_value_is_the_middle(tmp_path):
    table = with_column(lacking_table(lacking=None), NAMES[4], pa.nulls(ROWS))
    table = with_column(table, NAMES[5], pa.array(np.full(ROWS, np.nan)))
    source = save(table, tmp_path / "a.parquet")
    found, filled = written(source, tmp_path / "set", missing_feature="middle")
    expected = DIGITS.copy()
    expected[:, [4, 5]] = 2
    np.testing.assert_array_equal(found, expected)
    assert filled == 2 * ROWS
    with pytest.raises(SourceError, match=r"'feature_004', row 0: found null"):
        written(source, tmp_path / "other")


def test_a_row_group_without_any_value_of_a_column_tells_nothing_of_the_scale(tmp_path):
    lacking = np.zeros_like(LACKING)
    lacking[:GROUP] = True
    source = save(lacking_table("float64", lacking=lacking), tmp_path / "a.parquet")
    found, _ = written(source, tmp_path / "set", missing_feature="middle")
    np.testing.assert_array_equal(found, np.where(lacking, 2, DIGITS))


@pytest.mark.parametrize("statistics", [True, False])
def test_the_scale_is_that_of_the_whole_file(tmp_path, statistics):
    low = np.minimum(DIGITS, 1)
    low[-1, 8] = 3  # in the last row group, of one column
    table = lacking_table("float32", low, lacking=None)
    source = save(table, tmp_path / "a.parquet", write_statistics=statistics)
    assert (written(source, tmp_path / "set")[0] == low).all()
    found, _ = written(source, tmp_path / "some", features=[NAMES[0], NAMES[9]])
    np.testing.assert_array_equal(found, low[:, [0, 9]])  # also of columns that hold 0 and 1
    low[-1, 8] = 1
    source = save(lacking_table("float32", low, lacking=None), tmp_path / "b.parquet")
    assert (written(source, tmp_path / "scaled")[0] == 4 * low).all()


def test_floats_beside_integers_are_digits(tmp_path):
    low = np.minimum(DIGITS, 1)
    table = lacking_table("float64", low, columns=[0, 1])
    source = save(table, tmp_path / "a.parquet")
    found, _ = written(source, tmp_path / "set", missing_feature="middle", features=NAMES[:2])
    np.testing.assert_array_equal(found, np.where(LACKING, 2, low)[:, :2])


def test_each_file_has_a_scale_of_its_own(tmp_path):
    tables = [
        numerai_table(60, first_row=first, eras=np.full(60, era))
        for first, era in ((0, 1), (60, 2))
    ]
    for name in NAMES:
        tables[0] = with_column(tables[0], name, pa.array(tables[0][name].to_numpy() / 4))
        tables[1] = with_column(tables[1], name, tables[1][name].cast(pa.float64()))
    paths = [save(table, tmp_path / f"{place}.parquet") for place, table in enumerate(tables)]
    expected = row_digits(np.arange(120), FEATURES)
    assert (written(paths, tmp_path / "set")[0] == expected).all()
    with ThreadPoolExecutor(2) as executor:
        assert (written(paths, tmp_path / "tasks", executor=executor)[0] == expected).all()


def test_a_file_of_both_scales_is_refused_at_the_first_value_above_1(tmp_path):
    table = lacking_table("float32/4", lacking=None)
    values = table[NAMES[6]].to_numpy().copy()
    values[[70, 90]] = 3, 2
    source = save(with_column(table, NAMES[6], pa.array(values)), tmp_path / "a.parquet")
    with pytest.raises(SourceError) as caught:
        written(source, tmp_path / "set")
    assert (caught.value.column, caught.value.row) == (NAMES[6], 70)
    assert "found 3.0, and 0.25 in column 'feature_000', row 1," in str(caught.value)
    mixed = lacking_table("float32/4", lacking=None, columns=[2])
    with pytest.raises(SourceError, match=r"'feature_000' of this file holds integers"):
        written(save(mixed, tmp_path / "b.parquet"), tmp_path / "set")


@pytest.mark.parametrize("values", ["float32", "float32/4"])
@pytest.mark.parametrize("wrong", [0.3, 1.5, 5, -1, float("inf"), float("-inf")])
def test_a_wrong_value_is_named_in_either_scale(tmp_path, values, wrong):
    table = lacking_table(values)
    column = table[NAMES[6]].to_pylist()
    column[70] = wrong
    table = with_column(table, NAMES[6], pa.array(column, pa.float32()))
    source = save(table, tmp_path / "a.parquet")
    with pytest.raises(SourceError, match=f"found {wrong}") as caught:
        written(source, tmp_path / "set", missing_feature="middle")
    assert (caught.value.column, caught.value.row) == (NAMES[6], 70)


def test_a_missing_value_is_refused_with_the_way_to_write_it(tmp_path):
    source = save(lacking_table(), tmp_path / "a.parquet")
    for option in ({}, {"missing_feature": "error"}):
        with pytest.raises(SourceError, match=r"found null, .*missing_feature='middle'"):
            written(source, tmp_path / "set", **option)
    for wrong in ("zero", 2, None, True):
        with pytest.raises(ValueError, match=r"missing_feature: found .*'error', 'middle'"):
            written(source, tmp_path / "set", missing_feature=wrong)


def test_the_manifest_says_so_and_else_says_nothing(tmp_path):
    whole = write_source(tmp_path / "a.parquet", rows=60)
    lacks = save(lacking_table(), tmp_path / "b.parquet")
    written(whole, tmp_path / "whole")
    text = (tmp_path / "whole" / "manifest.json").read_text()
    assert "missing_feature" not in text
    assert "filled" not in text
    written(lacks, tmp_path / "lacks", missing_feature="middle")
    document = json.loads((tmp_path / "lacks" / "manifest.json").read_text())
    assert document["options"]["missing_feature"] == "middle"
    assert document["sources"][0]["filled"] == LACKING.sum()
    with open_shards(tmp_path / "lacks") as shards:
        assert shards.manifest.options == WriteOptions(3, "int8", missing_feature="middle")
    with pytest.raises(OSError, match="missing_feature='middle', not 'error'"):
        written(lacks, tmp_path / "lacks")


def test_new_eras_are_written_as_the_set_was(tmp_path):
    source = save(lacking_table(), tmp_path / "a.parquet")
    added = LACKING[:60]
    newer = numerai_table(60, first_row=ROWS, eras=np.full(60, 99))
    for column, name in enumerate(NAMES):
        values = newer[name].to_numpy()
        newer = with_column(newer, name, pa.array(values, mask=added[:, column]))
    newer = save(newer, tmp_path / "b.parquet")
    written(source, tmp_path / "set", missing_feature="middle")
    append_shards(tmp_path / "set", [source, newer], progress=False)
    with open_shards(tmp_path / "set") as shards:
        expected = row_digits(np.arange(ROWS, ROWS + 60), FEATURES)
        np.testing.assert_array_equal(digits_of(shards)[ROWS:], np.where(added, 2, expected))
        counts = [file.filled for file in shards.manifest.sources]
        assert counts == [LACKING.sum(), 0, added.sum()]  # of rows that were there, none is counted


def test_what_is_filled_in_is_said_with_the_progress(tmp_path, capsys):
    source = save(lacking_table(), tmp_path / "a.parquet")
    said = f"{LACKING.sum():,} missing feature values are written as the middle"
    written(source, tmp_path / "set", missing_feature="middle", progress=True)
    assert capsys.readouterr().err.count(said) == 1
    written(source, tmp_path / "quiet", missing_feature="middle")
    assert capsys.readouterr().err == ""
    result = CliRunner().invoke(main, ["info", str(tmp_path / "set")])
    assert f"filled       {LACKING.sum()} missing feature values, as the middle" in result.output


def test_the_command_takes_both(tmp_path):
    source = save(lacking_table(), tmp_path / "a.parquet")
    arguments = ["shard", str(source), "--out", str(tmp_path / "set"), "--quiet"]
    refused = CliRunner().invoke(main, arguments)
    assert refused.exit_code == 1
    assert "found null, expected one of 0, 1, 2, 3, 4" in refused.output
    assert CliRunner().invoke(main, [*arguments, "--missing-feature", "middle"]).exit_code == 0
    for command in (["shard", "s3://a/b", "--out", "x"], ["refresh", str(tmp_path / "set"), ""]):
        result = CliRunner().invoke(main, command)
        assert (result.exit_code, result.output.count("\n")) == (1, 1)


def test_a_set_without_missing_values_gets_some_only_where_asked(tmp_path):
    written(write_source(tmp_path / "a.parquet", rows=60, eras=3), tmp_path / "set")
    table = numerai_table(20, first_row=60, eras=np.full(20, 9))
    values = table[NAMES[3]].to_pylist()
    values[5] = None
    newer = save(with_column(table, NAMES[3], pa.array(values, pa.int8())), tmp_path / "b.parquet")
    with pytest.raises(SourceError, match="'feature_003', row 5: found null"):
        append_shards(tmp_path / "set", newer, progress=False)
    append_shards(tmp_path / "set", newer, missing_feature="middle", progress=False)
    with open_shards(tmp_path / "set") as shards:
        assert digits_of(shards)[65, 3] == 2
        assert shards.manifest.options.missing_feature == "middle"
        assert [file.filled for file in shards.manifest.sources] == [0, 1]


def test_sync_fills_the_rows_that_it_adds_where_asked(tmp_path):
    paths, lacks = [], numerai_table(20, first_row=60, eras=np.full(20, 9))
    paths.append(write_source(tmp_path / "a.parquet", rows=60, eras=3))
    values = pa.array([None, *lacks[NAMES[3]].to_pylist()[1:]], pa.int8())
    paths.append(save(with_column(lacks, NAMES[3], values), tmp_path / "b.parquet"))
    options = {"encoding": "int8", "num_shards": 3, "progress": False}
    sync_shards(paths[0], tmp_path / "set", **options).close()
    with pytest.raises(SourceError, match=r"row 0: found null.*with missing_feature='middle'"):
        sync_shards(paths, tmp_path / "set", **options)
    with sync_shards(paths, tmp_path / "set", missing_feature="middle", **options) as shards:
        assert digits_of(shards)[60, 3] == 2
        assert shards.manifest.options.missing_feature == "middle"
    with sync_shards(paths, tmp_path / "set", **options) as shards:
        assert shards.rows == 80


@pytest.mark.parametrize("kind", ["Int8", "float32", "no values"])
def test_rows_that_a_set_has_may_lack_features_that_are_not_written(tmp_path, kind):
    table = numerai_table(80, eras=4)
    save(table.filter(pc.less(table["era"], "0004")), tmp_path / "a.parquet")
    written(tmp_path / "a.parquet", tmp_path / "set")
    is_new = pc.equal(table["era"], "0004")
    lacks = pc.if_else(is_new, table[NAMES[3]], pa.scalar(None, pa.int8()))
    if kind == "no values":
        values = pa.nulls(80)
    else:
        values = lacks.cast(pa.float32()) if kind == "float32" else lacks
    newer = save(with_column(table, NAMES[3], values), tmp_path / "b.parquet")
    if kind == "no values":
        first = pc.index(is_new, True).as_py()
        with pytest.raises(SourceError, match=f"'feature_003', row {first}: found null"):
            append_shards(tmp_path / "set", newer, progress=False)
        return
    append_shards(tmp_path / "set", newer, progress=False)
    with open_shards(tmp_path / "set") as shards:
        assert [file.filled for file in shards.manifest.sources] == [0, 0]
        expected = np.stack([table[name].to_numpy() for name in NAMES], axis=1)
        np.testing.assert_array_equal(digits_of(shards), expected)


def test_a_run_that_goes_on_counts_all(tmp_path, monkeypatch):
    monkeypatch.setattr(writer_module, "BLOCK_BYTES", FEATURES * GROUP)
    source = save(lacking_table(), tmp_path / "a.parquet")
    seen = []

    def interrupt(chunk, block):
        seen.append((chunk, block))
        if len(seen) == 2:
            raise KeyboardInterrupt

    steps = writer_module.Journal
    from numerai_sequence.writing import scratch_filler

    class Interrupted(steps):
        def add_block(self, chunk, block, filled=0):
            super().add_block(chunk, block, filled)
            interrupt(chunk, block)

    with monkeypatch.context() as patch:
        patch.setattr(scratch_filler, "Journal", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            written(source, tmp_path / "set", missing_feature="middle")
    found, filled = written(source, tmp_path / "set", missing_feature="middle")
    assert len(seen) == 2
    assert filled == LACKING.sum()
    np.testing.assert_array_equal(found, FILLED)


def test_files_without_missing_values_warn_of_nothing(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, filled = written(
            write_source(tmp_path / "a.parquet", rows=60),
            tmp_path / "set",
            missing_feature="middle",
        )
    assert filled == 0
