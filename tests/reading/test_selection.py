"""Selection: the rows that take part are those that pandas would choose from the source."""

from __future__ import annotations

import pickle
from itertools import chain

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numerai_tables import numerai_table, row_numbers

from numerai_sequence import EraError, NumeraiSequence, write_shards
from numerai_sequence.reading.selection import ERA, Selection

TRAIN, VALIDATION, FEATURES = 700, 450, 12
NAMES = [f"feature_{number:03d}" for number in range(FEATURES)]


def write_sources(folder):
    """Eras 1 to 20 of train and 21 to 32 of validation, whose last four have no target yet."""
    train = numerai_table(rows=TRAIN, features=FEATURES, eras=20, missing_target=True)
    eras = 21 + np.arange(VALIDATION) * 12 // VALIDATION
    late = numerai_table(
        rows=VALIDATION,
        features=FEATURES,
        eras=eras,
        first_row=TRAIN,
        data_type="validation",
    )
    for place, name in enumerate(late.column_names):
        if name.startswith("target"):
            values = late[name].to_numpy().copy()
            values[eras > 28] = np.nan
            late = late.set_column(place, name, pa.array(values, from_pandas=True))
    # Only the first target of train is missing at times.
    whole = pa.array(np.arange(TRAIN, dtype=np.float32) + 0.5)
    train = train.set_column(train.column_names.index("target_b"), "target_b", whole)
    for name, table in (("train", train), ("validation", late)):
        pq.write_table(table, folder / f"{name}.parquet")
    return [folder / "train.parquet", folder / "validation.parquet"]


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return write_sources(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="module", params=[1, 3, None], ids=["eras-apart", "3-mixed", "all-mixed"])
def shards(request, sources, tmp_path_factory):
    options = {"num_shards": 3, "mix_eras": request.param, "progress": False}
    with write_shards(sources, tmp_path_factory.mktemp("set") / "set", **options) as opened:
        yield opened


@pytest.fixture(scope="module")
def frame(sources):
    tables = [pq.read_table(path).to_pandas(ignore_metadata=True) for path in sources]
    return pd.concat(tables).set_index("id")


CHOICES = {
    "all": ({}, lambda f: f["era"] == f["era"]),
    "list": ({"eras": ["0003", "0021", "0032"]}, lambda f: f["era"].isin(["0003", "0021", "0032"])),
    "range": ({"eras": "0005-0023"}, lambda f: f["era"].between("0005", "0023")),
    "every-4th": ({"eras": slice(1, None, 4)}, lambda f: f["era"].astype(int) % 4 == 2),
    "every-4th-as-text": ({"eras": "1::4"}, lambda f: f["era"].astype(int) % 4 == 2),
    "function": ({"eras": lambda era: era.endswith("7")}, lambda f: f["era"].str.endswith("7")),
    "one-shard": ({"eras": lambda era: int(era) % 3 == 1}, lambda f: f["era"].astype(int) % 3 == 1),
    "data-type": ({"data_type": "validation"}, lambda f: f["data_type"] == "validation"),
    "data-types": ({"data_type": ["validation", "train"]}, lambda f: f["era"] == f["era"]),
    "both": (
        {"eras": "0018-0024", "data_type": "train"},
        lambda f: f["era"].between("0018", "0024") & (f["data_type"] == "train"),
    ),
}
each_choice = pytest.mark.parametrize(("options", "mask"), CHOICES.values(), ids=CHOICES)


def read(sequence):
    """All rows of an epoch: x, y and their order, sorted by the number that x says."""
    parts = [sequence[number] for number in range(len(sequence))]
    x, y = (np.concatenate([part[place] for part in parts]) for place in (0, 1))
    order = np.argsort(row_numbers(x))
    return x[order], y[order]


@each_choice
@pytest.mark.parametrize("drops", [False, True], ids=["targets-whole", "targets-dropped"])
@pytest.mark.parametrize("run_rows", [1, 4])
def test_rows_are_bit_for_bit_what_pandas_chooses(shards, frame, options, mask, drops, run_rows):
    chosen = frame[mask(frame)]
    target = "target"
    if drops:
        chosen = chosen.dropna(subset=["target"])
        options = options | {"missing_target": "drop"}
    else:
        chosen, target = chosen[chosen["era"] <= "0028"], "target_b"
        options = options | {"eras": sorted(chosen["era"].unique())}
    for shuffle in (True, False):
        sequence = NumeraiSequence(
            shards, 50, target=target, shuffle=shuffle, run_rows=run_rows, **options
        )
        assert sequence.rows == len(chosen)
        assert sequence.eras == tuple(sorted(chosen["era"].unique()))
        x, y = read(sequence)
        assert x.tobytes() == (chosen[NAMES].to_numpy() * np.float32(0.25)).tobytes()
        assert y.tobytes() == chosen[target].to_numpy(np.float32).tobytes()


@each_choice
def test_ids_and_eras_are_those_of_the_rows_in_order(shards, frame, options, mask):
    sequence = NumeraiSequence(shards, 64, target=None, shuffle=False, **options)
    numbers = np.concatenate([row_numbers(sequence[i]) for i in range(len(sequence))])
    ids = [f"n{number:015x}" for number in numbers]
    assert sequence.column("id").to_pylist() == ids
    assert sorted(ids) == sorted(frame[mask(frame)].index)
    assert sequence.column("era").to_pylist() == frame.loc[ids, "era"].tolist()
    for target in ("target", "target_b"):
        expected = frame.loc[ids, target].to_numpy()
        np.testing.assert_array_equal(sequence.column(target).to_numpy(), expected)


@each_choice
def test_every_epoch_has_each_row_once_in_an_order_of_its_own(shards, frame, options, mask):
    expected = sorted(int(i[1:], 16) for i in frame[mask(frame)].index)
    sequence = NumeraiSequence(shards, 50, target=None, run_rows=1, **options)
    orders = []
    for _ in range(3):
        parts = [row_numbers(sequence[i]).tolist() for i in range(len(sequence))]
        orders.append(parts)
        assert sorted(chain.from_iterable(parts)) == expected
        sequence.on_epoch_end()
    assert orders[0] != orders[1] != orders[2]


def test_selection_of_all_has_the_order_of_the_whole_set(shards):
    plain = NumeraiSequence(shards, 50, target=None, run_rows=1)
    chosen = NumeraiSequence(shards, 50, target=None, run_rows=1, eras="0001-0032")
    for number in range(len(plain)):
        assert plain[number].tobytes() == chosen[number].tobytes()


@pytest.mark.parametrize("paging", ["resident", "streaming"])
@pytest.mark.parametrize("budget", ["auto", "17MB"])
def test_rows_are_the_same_in_every_mode_and_budget(shards, paging, budget):
    options = {"target": "target_b", "eras": "0002-0020", "run_rows": 4}
    plain = NumeraiSequence(shards, 20, **options)
    other = NumeraiSequence(shards, 20, paging=paging, memory_budget=budget, **options)
    one_pass = other.one_pass()
    for number in range(len(plain)):
        for expected, *found in zip(plain[number], other[number], one_pass[number], strict=True):
            assert all(expected.tobytes() == array.tobytes() for array in found)


def test_slices_of_a_set_choose_among_their_own_eras(shards):
    part = shards[1:2]
    sequence = NumeraiSequence(part, 50, target=None, eras="0001-0010")
    assert sequence.eras == tuple(era for era in part.eras if era <= "0010")
    with pytest.raises(EraError, match="'0002' not found"):
        NumeraiSequence(part, 50, target=None, eras=["0002"])


def test_pickled_sequence_chooses_the_same_rows(shards):
    sequence = NumeraiSequence(
        shards, 50, eras=lambda era: era < "0009", missing_target="drop", run_rows=4
    )
    pickled = pickle.dumps(sequence)
    assert len(pickled) < 30_000
    again = pickle.loads(pickled)
    assert (again.rows, again.eras) == (sequence.rows, sequence.eras)
    for number in range(len(sequence)):
        for expected, found in zip(sequence[number], again[number], strict=True):
            assert expected.tobytes() == found.tobytes()


def test_row_of_a_selection_costs_four_bytes_only_where_a_record_batch_is_cut(shards):
    assert Selection(shards).memory_bytes == 0
    assert Selection(shards, eras=lambda era: int(era) % 3 == 1).memory_bytes == 0
    cut = Selection(shards, eras=["0003"])
    assert cut.memory_bytes in (0, 4 * cut.rows)


def test_selection_counts_in_the_memory_budget(shards, monkeypatch):
    options = {"eras": ["0003"], "target": None, "memory_budget": "17MB"}
    NumeraiSequence(shards, 50, **options)
    monkeypatch.setattr(Selection, "memory_bytes", property(lambda self: 1 << 20))
    with pytest.raises(ValueError, match="memory_budget: found '17MB', expected at least 18 MB"):
        NumeraiSequence(shards, 50, **options)


def test_whole_set_is_read_at_once_only_where_most_of_it_takes_part(shards):
    """Files are brought into memory for single rows, but not for a few of them."""
    for eras, is_most in (("0001-0028", True), ("0001-0003", False)):
        sequence = NumeraiSequence(shards, 50, target=None, eras=eras, run_rows=1)
        assert sequence._plan._warms is is_most


def test_paging_is_decided_from_what_takes_part(shards):
    total = Selection(shards).set_bytes
    assert total == sum(shard.bytes for shard in shards.manifest.shards)
    part = Selection(shards, eras="0001-0005")
    assert part.set_bytes == total * part.rows // shards.rows


def test_era_column_counts_the_eras_of_the_set(shards, frame):
    selection = Selection(shards, eras="0007-0022")
    rows = np.arange(3, selection.rows, 7)
    _, values = selection.gather(rows, ["target_b", ERA])
    ids = np.array(selection.column("id").to_pylist())[rows]
    expected = frame.loc[ids]
    np.testing.assert_array_equal(values[:, 0], expected["target_b"].to_numpy())
    assert [selection.all_eras[int(code)] for code in values[:, 1]] == expected["era"].tolist()


def test_missing_targets_are_counted_by_era(shards, frame):
    for choice in (None, "0001-0004", "0026-"):
        selection = Selection(shards, eras=choice)
        chosen = frame[frame["era"].isin(selection.eras)]
        for target in ("target", "target_b"):
            counts = chosen[target].isna().groupby(chosen["era"]).sum()
            assert selection.missing(target) == counts[counts > 0].to_dict()


NOTHING = [
    ({"data_type": "live"}, "data_type: found 'live', expected 'train' or 'validation'"),
    ({"data_type": "validaton"}, "did you mean validation"),
    ({"data_type": 3}, "data_type: found 3, expected 'train' or 'validation'"),
    ({"data_type": []}, "data_type: found none"),
    ({"eras": "0040-"}, "chooses none"),
    (
        {"eras": ["0001", "0002"], "data_type": "validation"},
        "found no row of eras 0001 to 0002 and data type validation; choose other eras",
    ),
    (
        {"eras": ["0031"], "missing_target": "drop"},
        "found no row of era 0031 with a value of target; choose older eras",
    ),
]


@pytest.mark.parametrize(("options", "message"), NOTHING, ids=[str(o) for o, _ in NOTHING])
def test_choice_of_nothing_is_refused(shards, options, message):
    with pytest.raises((EraError, TypeError), match=message):
        NumeraiSequence(shards, **{"target": "target", **options})


def test_rows_whose_data_type_is_null_are_of_none(tmp_path):
    table = numerai_table(rows=90, features=10, eras=5)
    types = pa.array([None if number % 3 else "train" for number in range(90)], pa.string())
    table = table.set_column(table.column_names.index("data_type"), "data_type", types)
    pq.write_table(table, tmp_path / "t.parquet")
    with write_shards(tmp_path / "t.parquet", tmp_path / "set", progress=False) as shards:
        sequence = NumeraiSequence(shards, 100, data_type="train", shuffle=False)
        assert sorted(row_numbers(sequence[0][0])) == list(range(0, 90, 3))


def test_set_with_live_rows_trains_on_the_others(tmp_path, sources):
    live = numerai_table(
        rows=30,
        features=FEATURES,
        eras=["X"] * 30,
        era_names="{}",
        first_row=5000,
        data_type="live",
    )
    pq.write_table(live, tmp_path / "live.parquet")
    paths = [*sources, tmp_path / "live.parquet"]
    with write_shards(paths, tmp_path / "set", progress=False) as shards:
        live = NumeraiSequence(shards, 100, eras="X", target=None, shuffle=False)
        np.testing.assert_array_equal(np.sort(row_numbers(live[0])), np.arange(5000, 5030))
        numbered = NumeraiSequence(shards, 50, eras="0001-", target=None)
        assert numbered.rows == TRAIN + VALIDATION
