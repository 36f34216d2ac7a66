"""Arguments: a wrong one is refused by name, and what batches were planned with stays."""

from __future__ import annotations

import inspect
import pickle
from itertools import chain

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from networks import row_model
from numerai_tables import row_numbers
from shard_sets import write_set

from numerai_sequence import FeatureError, NumeraiSequence, Resume, open_shards
from numerai_sequence.feeding.sequence_arguments import _FIXED

ROWS, FEATURES, ERAS = 207, 12, 9
NAMES = [f"feature_{number:03d}" for number in range(FEATURES)]
SETTABLE = {"sample_weight", "epoch", "workers", "use_multiprocessing", "max_queue_size"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("arguments")
    return write_set(path, rows=ROWS, features=FEATURES, eras=ERAS)


def rows_of(sequence):
    return [row_numbers(sequence[number][0]).tolist() for number in range(len(sequence))]


ANOTHER = {
    "shards": "elsewhere",
    "batch_size": 7,
    "target": None,
    "features": ["feature_000"],
    "inputs": {"benchmarks": "target"},
    "eras": ["0001"],
    "data_type": "train",
    "missing_target": "mask",
    "batch_by": "era",
    "shuffle": False,
    "seed": 5,
    "run_rows": 8,
    "dtype": "int8",
    "resident": True,
    "drop_remainder": True,
    "rank": 1,
    "world_size": 2,
    "memory_budget": "1GB",
    "paging": "streaming",
    "paging_reason": "I say so",
    "rows": 3,
    "verify": True,
}


def test_every_argument_is_fixed_or_may_be_set():
    arguments = set(inspect.signature(NumeraiSequence.__init__).parameters) - {"self"}
    assert arguments - SETTABLE <= _FIXED == set(ANOTHER)
    assert not _FIXED & SETTABLE


@pytest.mark.parametrize(("name", "value"), ANOTHER.items(), ids=list(ANOTHER))
def test_what_batches_were_planned_with_cannot_be_set(folder, name, value):
    sequence = NumeraiSequence(folder, 20)
    before, text = rows_of(sequence), repr(sequence)
    held = getattr(sequence, name, None)
    for one in (sequence, pickle.loads(pickle.dumps(sequence)), sequence.in_order(10)):
        with pytest.raises(AttributeError, match=f"^{name}: .* make a new NumeraiSequence"):
            setattr(one, name, value)
    assert getattr(sequence, name, None) == held
    assert (rows_of(sequence), repr(sequence)) == (before, text)
    assert rows_of(pickle.loads(pickle.dumps(sequence))) == before


def test_a_subclass_cannot_set_them_either_but_has_attributes_of_its_own(folder):
    class Own(NumeraiSequence):
        def __init__(self, *args, **options):
            self.before = 1
            super().__init__(*args, **options)
            self.names, self._batch_size = ["a"], 3

    sequence = pickle.loads(pickle.dumps(NumeraiSequence(folder, 20)))
    own = Own(folder, 20)
    own.names.append("b")
    own.before += 1
    assert (own.before, own.names, own.batch_size) == (2, ["a", "b"], 20)
    assert rows_of(own) == rows_of(sequence)
    with pytest.raises(AttributeError, match=r"^seed: "):
        own.seed = 3


def test_what_may_be_set_is_checked(folder):
    sequence = NumeraiSequence(folder, 20)
    sequence.workers, sequence.max_queue_size = np.int64(3), np.uint8(5)
    sequence.use_multiprocessing, sequence.epoch = np.True_, np.int32(2)
    found = sequence.workers, sequence.max_queue_size, sequence.use_multiprocessing, sequence.epoch
    assert found == (3, 5, True, 2)
    assert [type(value) for value in found] == [int, int, bool, int]
    for name, value, kind in (
        ("workers", -1, ValueError),
        ("workers", "4", TypeError),
        ("max_queue_size", 0, ValueError),
        ("max_queue_size", 2.0, TypeError),
        ("use_multiprocessing", "no", TypeError),
        ("use_multiprocessing", 2, TypeError),
        ("epoch", -1, ValueError),
        ("epoch", "3", TypeError),
        ("epoch", 1.0, TypeError),
        ("epoch", True, TypeError),
    ):
        with pytest.raises(kind, match=f"{name}: found"):
            setattr(sequence, name, value)
    with pytest.raises(TypeError, match="epoch: found None"):
        sequence.begin_epoch(None)
    assert (sequence.workers, sequence.epoch) == (3, 2)


@pytest.mark.parametrize("name", ["shuffle", "drop_remainder", "verify", "use_multiprocessing"])
def test_true_and_false_are_of_python_or_numpy(folder, name):
    for value in (True, False, np.True_, np.False_):
        found = getattr(NumeraiSequence(folder, 20, **{name: value}), name)
        assert found is bool(value)
    for value in ("no", "", 0, 1, 2, 1.0, None, np.int8(1), np.array(True), np.array([True])):
        with pytest.raises(TypeError, match=f"{name}: found .*, expected True or False"):
            NumeraiSequence(folder, 20, **{name: value})


def test_the_state_of_a_sequence_that_was_made_with_numpys_values_can_be_saved(folder, tmp_path):
    options = {"drop_remainder": np.True_, "shuffle": np.True_, "seed": np.int64(3)}
    options |= {"run_rows": np.uint8(2), "batch_by": np.str_("rows"), "dtype": np.str_("float32")}
    options |= {"target": np.array(["target"]), "missing_target": np.str_("error")}
    model = row_model(FEATURES)
    model.compile("sgd", "mse")
    sequence = NumeraiSequence(folder, np.int64(20), **options)
    model.fit(sequence, epochs=1, callbacks=[Resume(tmp_path)], verbose=0)
    assert (tmp_path / "state.json").exists()


LARGE = [2**31, 2**40, 2**62, 2**63, 2**64, 2**100]


@pytest.mark.parametrize("value", LARGE, ids=[f"2**{value.bit_length() - 1}" for value in LARGE])
def test_numbers_may_be_huge(folder, value):
    every = list(range(ROWS))
    for options in (
        {"batch_size": value},
        {"batch_size": value, "batch_by": "era"},
        {"batch_size": 20, "run_rows": value},
        {"batch_size": 20, "run_rows": value, "paging": "streaming"},
        {"run_rows": value, "batch_by": "era"},
        {"seed": value, "batch_size": 20, "run_rows": 4},
        {"memory_budget": value},
        {"max_queue_size": value},
    ):
        assert sorted(chain(*rows_of(NumeraiSequence(folder, **options)))) == every
    for options in ({"rank": 0, "world_size": value}, {"rank": value, "world_size": value + 1}):
        with pytest.raises(ValueError, match=r"world_size: found .* ranks for 207 rows"):
            NumeraiSequence(folder, **options)


def test_runs_that_are_longer_than_all_are_of_one_order(folder):
    with open_shards(folder) as shards:
        longest = max(stop - start for start, stop in shards.spans())
    orders = [
        rows_of(NumeraiSequence(folder, 20, run_rows=run_rows))
        for run_rows in (longest + 1, longest + 2, 10_000, 2**40, 2**100)
    ]
    assert orders == [orders[0]] * 5


@pytest.mark.parametrize("size", ["12 parsecs", "", "-5", "AUTO", b"1GB", 2.5e8, None, [1], True])
def test_memory_budget_is_a_size(folder, size):
    with pytest.raises(ValueError, match=r"memory_budget: found .*, expected 'auto', bytes or"):
        NumeraiSequence(folder, memory_budget=size)


def test_memory_budget_may_be_numpys_or_beyond_all_memory(folder):
    for size in (np.int64(64 << 20), np.str_("64MB"), "9" * 400 + "GB", np.str_("auto")):
        assert len(NumeraiSequence(folder, memory_budget=size)[0][0]) == ROWS


@pytest.mark.parametrize("name", ["batch_by", "dtype", "missing_target", "paging"])
@pytest.mark.parametrize("value", [["rows"], {"rows"}, np.array(["a", "b"]), pd.NA, 3, b"rows"])
def test_a_word_is_one_of_those_that_are_known(folder, name, value):
    with pytest.raises(ValueError, match=f"{name}: found .*, expected "):
        NumeraiSequence(folder, **{name: value})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": ROWS + 1}, "207 rows, fewer than batch_size=208"),
        ({}, "207 rows, fewer than batch_size=1,000"),
        ({"batch_by": "era", "batch_size": ERAS + 1}, "9 eras, fewer than batch_size=10"),
        ({"batch_size": 30, "eras": ["0001"]}, "8 rows, fewer than batch_size=30"),
    ],
)
def test_an_epoch_of_which_all_would_be_dropped_is_refused(folder, options, message):
    with pytest.raises(
        ValueError, match=f"drop_remainder: found {message}.*use a smaller batch_si"
    ):
        NumeraiSequence(folder, drop_remainder=True, **options)
    assert len(NumeraiSequence(folder, **options)) == 1


def test_each_rank_needs_a_batch(folder):
    for batch_by, size, found in (("rows", 70, "207 rows"), ("era", 4, "9 eras")):
        options = {"batch_by": batch_by, "batch_size": size, "drop_remainder": True}
        for rank in range(3):
            with pytest.raises(ValueError, match=f"3 ranks for {found}, expected at least a batch"):
                NumeraiSequence(folder, rank=rank, world_size=3, **options)
    options = {"batch_size": ROWS // 3, "drop_remainder": True, "world_size": 3}
    assert len(NumeraiSequence(folder, **options)) == 1


def test_a_sequence_is_no_set(folder):
    sequence = NumeraiSequence(folder, 20)
    with pytest.raises(TypeError, match=r"shards: found a NumeraiSequence.* sequence\.shards"):
        NumeraiSequence(sequence)
    assert rows_of(NumeraiSequence(sequence.shards, 20)) == rows_of(sequence)


KINDS = [list, tuple, iter, np.array, pd.Index, pd.Series, pa.array]
KINDS += [lambda names: pa.chunked_array([names]), lambda names: dict.fromkeys(names).keys()]
KINDS += [lambda names: np.array(names, object), lambda names: [np.str_(name) for name in names]]


@pytest.mark.parametrize("kind", KINDS)
def test_names_come_in_any_list_that_has_an_order(folder, kind):
    chosen = ["feature_009", *NAMES[:9], "feature_011"]
    sequence = NumeraiSequence(folder, 20, features=kind(chosen), target=kind(["target_b"]))
    assert sequence.features == tuple(chosen)
    assert sequence.target == ("target_b",)
    assert {type(name) for name in (*sequence.features, *sequence.target)} == {str}
    x, y = sequence[0]
    np.testing.assert_array_equal(y[:, 0], row_numbers(x[:, 1:]) + 0.5)
    sequence = NumeraiSequence(
        folder, 20, target={"a": kind(["target_b", "target"]), "b": "target"}
    )
    x, y = sequence[0]
    np.testing.assert_array_equal(y["a"], np.stack([row_numbers(x) + 0.5, row_numbers(x)], axis=1))
    assert sequence.target == {"a": ("target_b", "target"), "b": "target"}


@pytest.mark.parametrize("kind", [set, frozenset])
def test_a_set_has_no_order(folder, kind):
    for options in (
        {"features": kind(NAMES)},
        {"features": kind()},
        {"target": kind(["target", "target_b"])},
        {"target": kind(["target"])},
        {"target": {"a": kind(["target"])}},
    ):
        with pytest.raises(TypeError, match=f"found a {kind.__name__}, .* process.*sorted"):
            NumeraiSequence(folder, 20, **options)
    sequence = NumeraiSequence(folder, 20, eras=kind(["0003", "0001"]), data_type=kind(["train"]))
    assert sequence.eras == ("0001", "0003")


NO_NAMES = [
    *(3, 1.5, True, b"target", bytearray(b"target"), object(), int),
    *([3], [None], [b"target"], [["target"]], ("target", None)),
    *(np.array("target"), np.array([["target"]]), np.array([1.0]), pd.Series([1]), pd.NA),
    *(pd.DataFrame({"target": [1]}), pa.array([1]), pa.scalar("target")),
]


@pytest.mark.parametrize("value", NO_NAMES, ids=lambda value: str(type(value)))
def test_what_is_no_list_of_names_is_refused(folder, value):
    for options in ({"target": value}, {"features": value}, {"target": {"a": value}}):
        with pytest.raises(TypeError, match=rf"{next(iter(options))}.*: found .*, expected "):
            NumeraiSequence(folder, 20, **options)


def test_nested_names_and_names_that_are_none_are_refused(folder):
    for target in ({"a": {"b": "target"}}, {"a": None}, {"a": {"target"}}):
        with pytest.raises(TypeError, match="target of output 'a': found "):
            NumeraiSequence(folder, 20, target=target)
    for name in (None, 3, ("a", "b"), b"a"):
        with pytest.raises(TypeError, match="target: found an output"):
            NumeraiSequence(folder, 20, target={name: "target", "b": "target"})
    with pytest.raises(TypeError, match=r"features: found \{'small': "):
        NumeraiSequence(folder, 20, features={"small": NAMES})
    for empty in (
        (),
        np.array([], str),
        pd.Index([]),
        pd.Series([], dtype=str),
        pa.array([], pa.string()),
    ):
        with pytest.raises(ValueError, match="target: found none"):
            NumeraiSequence(folder, 20, target=empty)
        with pytest.raises(FeatureError, match="features: found none"):
            NumeraiSequence(folder, 20, features=empty)


def test_an_output_without_a_letter_is_one_of_several(folder):
    sequence = NumeraiSequence(folder, 20, target={"": "target", "b": "target_b"})
    for one in (sequence, pickle.loads(pickle.dumps(sequence))):
        x, y = one[0]
        assert list(y) == ["", "b"]
        np.testing.assert_array_equal(y[""], row_numbers(x))
        np.testing.assert_array_equal(y["b"], row_numbers(x) + 0.5)
    weights = dict.fromkeys(sequence.eras, 2.0)
    sequence = NumeraiSequence(folder, 20, target={"": "target"}, sample_weight=weights)
    assert {name: set(part) for name, part in sequence[0][2].items()} == {"": {2.0}}


def test_later_changes_of_what_was_given_change_nothing(folder):
    target = {"a": ["target"], "b": "target_b"}
    weights = dict.fromkeys(NumeraiSequence(folder).eras, 1.0)
    features = list(NAMES)
    options = {"target": target, "features": features, "sample_weight": weights}
    sequence = NumeraiSequence(folder, 20, **options)
    text = repr(sequence)
    target["a"].append("target_b")
    del target["b"]
    features.clear()
    weights["0001"] = 9.0
    sequence.target.clear()
    with pytest.raises(TypeError, match="does not support item assignment"):
        sequence.sample_weight["0001"] = 9.0
    for one in (sequence, pickle.loads(pickle.dumps(sequence))):
        assert repr(one) == text
        for number in range(len(one)):
            _, y, weight = one[number]
            assert {name: part.shape[1:] for name, part in y.items()} == {"a": (1,), "b": ()}
            assert set(weight["a"]) == set(weight["b"]) == {1.0}
