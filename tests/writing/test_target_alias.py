"""Alias: which targets `target` equals is found while a set is written, refreshed or opened."""

from __future__ import annotations

import json
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numerai_tables import numerai_table
from shard_sets import contents
from tampering import edit

from numerai_sequence import CorruptShardError, append_shards, open_shards, write_shards
from numerai_sequence.commands.main import main
from numerai_sequence.ordering.target_horizon import (
    EqualTargets,
    days_ahead,
    describe_horizon,
)

NAN = np.nan
ROWS, ERAS = 240, 12
NUMBERS = np.arange(ROWS)
VALUES = np.where(NUMBERS % 9 == 4, NAN, NUMBERS / 256).astype(np.float32)
OTHER = VALUES[::-1].copy()
ONE = ("target_x_60",)


def differing(row, value):
    values = VALUES.copy()
    values[row] = value
    return values


def save(path, rows=slice(None), **targets):
    """A file of targets, `target` being VALUES; and other columns as of `numerai_table`."""
    table = numerai_table(ROWS, eras=1 + NUMBERS // (ROWS // ERAS), features=3, targets=())
    for name, values in {"target": VALUES, **targets}.items():
        column = values if isinstance(values, pa.Array) else pa.array(values, from_pandas=True)
        table = table.append_column(name, column)
    pq.write_table(table.take(NUMBERS[rows]), path, row_group_size=50)
    return path


def write(folder, source, **options):
    options = {"num_shards": 3, "mix_eras": 2, "progress": False, **options}
    write_shards(source, folder, **options).close()
    return folder


def alias_of(folder):
    with open_shards(folder) as shards:
        return shards.target_alias


def kept(folder):
    """What the manifest says; None where it says nothing."""
    return json.loads((folder / "manifest.json").read_text()).get("target_alias")


def forget(folder):
    """Make it a set that was written before manifests had the alias."""
    edit(folder, lambda document: document.pop("target_alias", None))
    assert kept(folder) is None
    return folder


EQUAL = {
    "float32": VALUES,
    "float64": VALUES.astype(np.float64),
    "rounded": np.nextafter(VALUES.astype(np.float64), 2),
    "half": pa.array(VALUES.astype(np.float16), from_pandas=True),
    "minus zero": np.where(VALUES == 0, np.float32(-0.0), VALUES),
    "NaN and no null": pa.array(VALUES),
}
DIFFERENT = {
    "a last bit": differing(-1, np.nextafter(VALUES[-1], np.float32(2))),
    "a value for NaN": differing(4, 0),
    "NaN for a value": differing(-1, NAN),
    "infinity": differing(-1, np.inf),
    "too large": np.where(NUMBERS == 100, 1e300, VALUES.astype(np.float64)),
    "no values": np.full(ROWS, NAN, np.float32),
    "null": pa.nulls(ROWS),
    "integers": pa.array(NUMBERS % 5),
    "texts": pa.array(["0"] * ROWS),
}


@pytest.mark.parametrize("targets", [None, ["target"]], ids=["all", "alone"])
@pytest.mark.parametrize("kind", EQUAL)
def test_equal_values_are_found(tmp_path, kind, targets):
    if targets is None and kind == "minus zero":
        targets = ["target", "target_x_60"]
    source = save(tmp_path / "t.parquet", target_a_20=OTHER, target_x_60=EQUAL[kind])
    folder = write(tmp_path / "set", source, targets=targets)
    assert kept(folder) == ["target_x_60"]
    assert alias_of(folder) == ONE


@pytest.mark.parametrize("kind", DIFFERENT)
def test_one_row_that_differs_is_enough(tmp_path, kind):
    source = save(tmp_path / "t.parquet", target_x_60=DIFFERENT[kind], target_y_20=VALUES)
    folder = write(tmp_path / "set", source, targets=["target"])
    assert alias_of(folder) == ("target_y_20",)
    source = save(tmp_path / "t.parquet", target_x_60=DIFFERENT[kind])
    write(folder, source, targets=["target"], overwrite=True)
    assert (kept(folder), alias_of(folder)) == (None, ())


def test_several_equal_targets_are_all_kept(tmp_path):
    targets = {"target_b_20": VALUES, "target_a": VALUES, "target_c_20": OTHER, "weights": VALUES}
    source = save(tmp_path / "t.parquet", **targets)
    folder = write(tmp_path / "set", source, targets=["target", "weights", "target_b_20"])
    assert alias_of(folder) == ("target_b_20", "target_a")
    assert alias_of(forget(folder)) == ("target_b_20",)


def test_no_values_at_all_show_nothing(tmp_path):
    nothing = np.full(ROWS, NAN, np.float32)
    folder = write(
        tmp_path / "set", save(tmp_path / "t.parquet", target=nothing, target_x_60=nothing)
    )
    assert (kept(folder), alias_of(folder)) == (None, ())


def test_a_set_without_an_alias_is_as_ever(tmp_path):
    """Byte for byte, so that no set changes for what it has nothing to say of."""
    folder = write(tmp_path / "set", save(tmp_path / "t.parquet", target_x_60=OTHER))
    keys = [*json.loads((folder / "manifest.json").read_text())]
    assert keys == [
        *("format", "version", "encoding", "features", "targets", "options", "sources", "shards"),
        *("feature_sets", "partial_sets", "checksum"),
    ]


def test_a_set_without_target_has_no_alias(tmp_path):
    source = save(tmp_path / "t.parquet", target_x_60=VALUES)
    folder = write(tmp_path / "set", source, targets=["target_x_60"])
    assert (kept(folder), alias_of(folder)) == (None, ())


def test_all_sources_have_to_agree(tmp_path):
    first = save(tmp_path / "a.parquet", slice(0, 120), target_x_60=VALUES, target_y_20=VALUES)
    second = save(tmp_path / "b.parquet", slice(120, None), target_x_60=VALUES, target_y_20=OTHER)
    folder = write(tmp_path / "set", [first, second])
    assert alias_of(folder) == ONE
    second = save(tmp_path / "c.parquet", slice(120, None), target_y_20=VALUES)
    write(folder, [first, second], targets=["target"], overwrite=True)
    assert alias_of(folder) == ("target_y_20",)  # the second has no other
    live = save(tmp_path / "d.parquet", slice(120, None), target=VALUES * NAN, target_y_20=OTHER)
    write(folder, [first, live], targets=["target"], overwrite=True)
    assert alias_of(folder) == ()


def test_tasks_find_the_same(tmp_path):
    source = save(tmp_path / "t.parquet", target_x_60=VALUES)
    with ThreadPoolExecutor(2) as executor:
        folder = write(tmp_path / "set", source, targets=["target"], executor=executor)
    assert kept(folder) == ["target_x_60"]


def interrupt(*_):
    raise KeyboardInterrupt


def test_a_run_that_was_killed_finds_it_when_it_goes_on(tmp_path, monkeypatch):
    source = save(tmp_path / "t.parquet", target_x_60=VALUES)
    whole = contents(write(tmp_path / "whole", source))
    with monkeypatch.context() as patched:
        patched.setattr("numerai_sequence.writing.part_runners.seal", interrupt)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / "set", source)
    assert [path.name for path in (tmp_path / "set").iterdir()] == [".writing"]
    assert contents(write(tmp_path / "set", source)) == whole
    assert kept(tmp_path / "set") == ["target_x_60"]


def test_damage_in_a_target_that_is_not_written_does_not_matter(tmp_path):
    source = save(tmp_path / "t.parquet", target_x_60=VALUES, target_y_20=VALUES)
    metadata = pq.read_metadata(source)
    place = metadata.schema.to_arrow_schema().names.index("target_x_60")
    column = metadata.row_group(1).column(place)
    text = bytearray(source.read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    text[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    source.write_bytes(text)
    folder = write(tmp_path / "set", source, targets=["target"])
    assert alias_of(folder) == ("target_y_20",)


@pytest.fixture
def folder(tmp_path):
    source = save(tmp_path / "t.parquet", target_a_20=OTHER, target_x_60=VALUES)
    return write(tmp_path / "set", source)


@pytest.fixture(params=["written now", "written before"])
def some(folder, request):
    """A set whose manifest tells of the alias, and one whose manifest does not."""
    return folder if request.param == "written now" else forget(folder)


def test_an_open_set_its_slices_and_its_pickle_know(some):
    with open_shards(some) as shards:
        for part in (shards, shards[::2], shards[1], pickle.loads(pickle.dumps(shards[1:]))):
            assert part.target_alias == ONE
    assert open_shards(sorted(some.glob("*.arrow"))[:1]).target_alias == ONE


def test_finding_it_changes_nothing(some):
    before = contents(some)
    assert alias_of(some) == ONE
    assert contents(some) == before


def test_a_closed_set_still_knows_what_it_has_found(some):
    with open_shards(some) as shards:
        assert shards.target_alias == ONE
    assert shards.target_alias == ONE


def test_rows_that_the_manifest_does_not_tell_of_are_corrupt(folder):
    def lie(document):
        del document["target_alias"]
        document["shards"][0]["batches"][0]["missing"]["target"] += 1

    edit(folder, lie)
    with pytest.raises(CorruptShardError, match="rows without 'target'"):
        alias_of(folder)


def test_info_shows_it(some, capsys):
    main(["info", str(some)], standalone_mode=False)
    assert "\nalias        target equals target_x_60\n" in capsys.readouterr().out


def test_info_shows_that_there_is_none(tmp_path, capsys):
    source = save(tmp_path / "t.parquet", target_x_60=OTHER)
    main(["info", str(write(tmp_path / "set", source))], standalone_mode=False)
    assert "\nalias        target equals no other target of the set\n" in capsys.readouterr().out
    write(tmp_path / "set", source, targets=["target_x_60"], overwrite=True)
    main(["info", str(tmp_path / "set")], standalone_mode=False)
    assert "alias" not in capsys.readouterr().out


def refresh(folder, path, **options):
    return append_shards(folder, path, progress=False, **options)


OLD, NEW = slice(0, 180), slice(180, None)  # 9 eras, and 3


@pytest.mark.parametrize("targets", [None, ["target"]], ids=["all", "alone"])
@pytest.mark.parametrize("rows", [slice(None), NEW], ids=["whole file", "new eras"])
def test_new_eras_agree_or_end_it(tmp_path, targets, rows):
    source = save(tmp_path / "a.parquet", OLD, target_x_60=VALUES, target_y_20=VALUES)
    folder = write(tmp_path / "set", source, targets=targets)
    assert alias_of(folder) == ("target_x_60", "target_y_20")
    same = {"target_x_60": VALUES, "target_y_20": differing(200, 7)}
    found = refresh(folder, save(tmp_path / "b.parquet", rows, **same))
    assert found.target_alias == ONE
    assert "\n  target equals target_x_60\n" in str(found)
    assert kept(folder) == ["target_x_60"]
    assert alias_of(forget(folder)) == (() if targets else ONE)


@pytest.mark.parametrize("rows", [slice(None), NEW], ids=["whole file", "new eras"])
def test_new_eras_that_differ_from_all_leave_none(tmp_path, rows):
    source = save(tmp_path / "a.parquet", OLD, target_x_60=VALUES)
    folder = write(tmp_path / "set", source)
    newer = save(tmp_path / "b.parquet", rows, target_x_60=differing(239, 7))
    assert refresh(folder, newer, dry_run=True).target_alias == ()
    assert kept(folder) == ["target_x_60"]
    found = refresh(folder, newer)
    assert "\n  target equals no other target of the set\n" in str(found)
    assert (kept(folder), alias_of(folder)) == (None, ())


@pytest.mark.parametrize("targets", [None, ["target"]], ids=["all", "alone"])
def test_a_target_that_has_moved_in_all_rows_equals_another(tmp_path, targets):
    before = np.where(np.isnan(OTHER), NAN, VALUES)  # for no value may go
    others = {"target_a_20": before, "target_x_60": OTHER}
    source = save(tmp_path / "a.parquet", OLD, target=before, **others)
    folder = write(tmp_path / "set", source, targets=targets)
    assert alias_of(folder) == ("target_a_20",)
    found = refresh(folder, save(tmp_path / "b.parquet", target=OTHER, **others))
    assert found.corrected["target"] > 100
    assert found.target_alias == ONE
    assert kept(folder) == ["target_x_60"]


def test_a_target_that_has_moved_in_some_rows_equals_none(tmp_path):
    """The eras of one file follow another target than those of the other."""
    first = save(tmp_path / "a.parquet", OLD, target_a_20=VALUES, target_x_60=OTHER)
    folder = write(tmp_path / "set", first)
    newer = save(tmp_path / "b.parquet", NEW, target=OTHER, target_a_20=VALUES, target_x_60=OTHER)
    refresh(folder, newer)
    assert (kept(folder), alias_of(folder)) == (None, ())


def test_a_filled_target_may_make_or_break_it(tmp_path):
    early = np.where(NUMBERS >= 120, NAN, VALUES).astype(np.float32)
    source = save(tmp_path / "a.parquet", target=early, target_a_20=VALUES, target_x_60=early)
    folder = write(tmp_path / "set", source)
    assert alias_of(folder) == ONE
    newer = save(tmp_path / "b.parquet", target_a_20=VALUES, target_x_60=early)
    assert refresh(folder, newer).target_alias == ("target_a_20",)
    both = save(tmp_path / "c.parquet", target_a_20=VALUES, target_x_60=VALUES)
    assert refresh(folder, both).target_alias == ("target_a_20", "target_x_60")
    assert kept(folder) == ["target_a_20", "target_x_60"]


def test_a_target_that_is_not_in_the_set_counts_only_where_it_was_compared(tmp_path):
    source = save(tmp_path / "a.parquet", OLD, target_x_60=OTHER)
    folder = write(tmp_path / "set", source, targets=["target"])
    refresh(folder, save(tmp_path / "b.parquet", NEW, target_x_60=VALUES))
    assert kept(folder) is None  # nobody knows of the old eras
    refresh(folder, save(tmp_path / "c.parquet", target_x_60=VALUES))
    assert kept(folder) == ["target_x_60"]


def test_eras_that_have_no_values_yet_agree_with_all(tmp_path):
    nothing = np.where(NUMBERS >= 180, NAN, VALUES).astype(np.float32)
    source = save(tmp_path / "a.parquet", OLD, target_x_60=VALUES)
    folder = write(tmp_path / "set", source, targets=["target"])
    newer = save(tmp_path / "b.parquet", NEW, target=nothing, target_x_60=nothing)
    assert refresh(folder, newer).target_alias is None
    assert kept(folder) == ["target_x_60"]


@pytest.mark.parametrize("rows", [slice(None), OLD, NEW], ids=["all", "old", "new"])
def test_a_refresh_brings_it_to_a_set_of_before(folder, tmp_path, rows):
    forget(folder)
    before = contents(folder)
    newer = save(tmp_path / "b.parquet", rows, target_a_20=OTHER, target_x_60=VALUES)
    found = refresh(folder, newer, dry_run=True)
    assert contents(folder) == before
    assert refresh(folder, newer) == found
    assert (found.target_alias, found.is_needed, found.rows) == (ONE, True, 0)
    assert kept(folder) == ["target_x_60"]
    after = contents(folder)
    changed = {name for name in before | after if before.get(name) != after.get(name)}
    assert changed == {"manifest.json"}
    assert not refresh(folder, newer).is_needed
    assert contents(folder) == after
    # And it is still the set that the first call would write.
    write(folder, tmp_path / "t.parquet")
    assert contents(folder) == after


def test_a_refresh_of_what_is_the_same_says_nothing_of_it(tmp_path):
    folder = write(tmp_path / "set", save(tmp_path / "a.parquet", OLD, target_x_60=VALUES))
    found = refresh(folder, save(tmp_path / "b.parquet", target_x_60=VALUES))
    assert (found.target_alias, found.rows) == (None, 60)
    assert "equals" not in str(found)
    assert kept(folder) == ["target_x_60"]
    with open_shards(folder) as shards:
        assert shards[:1].target_alias == ONE


@pytest.mark.parametrize("alias", [3, "target_x_60", [1], ["target"], ["a", "a"], {"a": 1}, None])
def test_a_manifest_that_tells_nonsense_is_damaged(folder, alias):
    edit(folder, lambda document: document.update(target_alias=alias))
    with pytest.raises(Exception, match=r"manifest\.json: damaged"):
        open_shards(folder)


def test_names_that_differ_in_any_row_are_left_out():
    equal = EqualTargets(["target", "target_a", "weights", "target_b_20", "target_c"])
    assert equal.names == ("target_a", "target_b_20", "target_c")
    assert equal.found == ()
    none = np.full(2, NAN, np.float32)
    equal.compare({"target": none, "target_a": none, "target_b_20": none})
    assert (equal.names, equal.found) == (("target_a", "target_b_20", "target_c"), ())
    one = np.array([NAN, 0.5], np.float32)
    equal.compare({"target": one, "target_a": none, "target_b_20": one.copy()})
    assert equal.found == ("target_b_20", "target_c")
    equal.leave_out("target_c")
    equal.compare({"target": none, "target_b_20": one})
    assert equal.found == ()


@pytest.mark.parametrize(
    ("name", "alias", "days"),
    [
        ("target_cyrusd_20", (), 20),
        ("target_nomi_v4_20", ("target_x_60",), 20),
        ("target_ender_60", (), 60),
        ("target_20", (), 20),
        *((name, (), None) for name in ("target", "target_120", "target_2060", "target_own", "")),
        ("target", ("target_a_20", "target_b_20"), 20),
        ("target", ("target_a_60",), 60),
        ("target", ("target_a_20", "target_b_60"), None),
        ("target", ("target_a_20", "target_own"), None),
    ],
)
def test_days_ahead_are_what_the_names_tell(name, alias, days):
    assert days_ahead(name, alias=alias) == days


@pytest.mark.parametrize(
    ("targets", "alias", "words"),
    [
        (["target"], ["target_ender_60"], "target equals target_ender_60, a 60-day target"),
        (["target"], ["target_a_20"], "target equals target_a_20, a 20-day target"),
        (
            ["target"],
            [],
            "target equals no other target of the set, so its horizon is unknown",
        ),
        (
            ["target_b_20", "target"],
            ["target_a_20", "target_c_60"],
            "target equals target_a_20 and target_c_60, so its horizon is unknown",
        ),
        (
            ["target_b_20", "target"],
            ["target_a_20"],
            "target equals target_a_20, a 20-day target, as are the others",
        ),
        (["target_a_20", "target_b_60"], [], "target_b_60 is a 60-day target"),
        (["target_a_20"], ["target_b_60"], "target_a_20 is a 20-day target"),
        (["target_a_60", "target_own"], [], "the horizon of target_own is unknown"),
    ],
)
def test_why_is_said(targets, alias, words):
    assert describe_horizon(targets, alias=alias) == words
