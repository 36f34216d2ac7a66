"""Targets: y and sample weights are what was asked for, and a NaN is never among them."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numerai_tables import numerai_table, row_numbers

from numerai_sequence import EraError, FeatureError, NumeraiSequence, write_shards
from numerai_sequence.resuming.run_identity import describe_weights

ROWS, FEATURES, BATCH = 520, 10, 40
TARGETS = ("target", "target_late", "target_full", "target_weight")


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """`target` lacks every 7th row, `target_late` the last eras, the others nothing."""
    folder = tmp_path_factory.mktemp("targets")
    table = numerai_table(rows=ROWS, features=FEATURES, eras=13, targets=TARGETS)
    eras = table["era"].to_pylist()
    for name, is_missing in (
        ("target", lambda row: row % 7 == 3),
        ("target_late", lambda row: eras[row] >= "0011"),
    ):
        place = table.column_names.index(name)
        mask = np.array([is_missing(row) for row in range(ROWS)])
        table = table.set_column(place, name, pa.array(table[name].to_numpy(), mask=mask))
    pq.write_table(table, folder / "train.parquet")
    with write_shards(folder / "train.parquet", folder / "set", num_shards=3, progress=False) as s:
        yield s


@pytest.fixture(scope="module")
def eras(shards):
    """The era of each row, by the number of the row."""
    numbers = [int(i[1:], 16) for i in shards.column("id").to_pylist()]
    return dict(zip(numbers, shards.column("era").to_pylist(), strict=True))


def has_target(numbers):
    return numbers % 7 != 3


def batches(sequence):
    return [sequence[number] for number in range(len(sequence))]


def test_missing_target_is_refused_at_once_with_eras_and_remedy(shards):
    for target in ("target", ["target_full", "target"], {"a": "target_full", "b": "target"}):
        with pytest.raises(EraError, match="'target' is missing in 74 of 520 rows") as caught:
            NumeraiSequence(shards, target=target)
        assert "missing_target='drop'" in str(caught.value)
        assert caught.value.eras == shards.eras
    with pytest.raises(EraError, match=r"'target_late' .* \(3 eras, 0011 to 0013\)") as caught:
        NumeraiSequence(shards, target="target_late")
    assert caught.value.eras == ["0011", "0012", "0013"]
    with pytest.raises(EraError, match=r"\(0011\)"):
        NumeraiSequence(shards, target="target_late", eras="0001-0011")


def test_target_that_is_whole_in_the_chosen_eras_is_accepted(shards):
    sequence = NumeraiSequence(shards, BATCH, target="target_late", eras="-0010")
    assert not any(np.isnan(y).any() for _, y in batches(sequence))


def test_drop_leaves_out_rows_that_lack_any_of_the_targets(shards, eras):
    targets = ["target_full", "target", "target_late"]
    sequence = NumeraiSequence(shards, BATCH, target=targets, missing_target="drop")
    expected = [n for n in range(ROWS) if has_target(n) and eras[n] <= "0010"]
    seen = []
    for x, y in batches(sequence):
        numbers = row_numbers(x)
        assert y.dtype == np.float32
        np.testing.assert_array_equal(y, numbers[:, None] + np.array([1, 0, 0.5], np.float32))
        seen += numbers.tolist()
    assert sorted(seen) == expected
    assert sequence.rows == len(expected)


@pytest.mark.parametrize("batch_by", ["rows", "era"])
def test_mask_keeps_the_row_with_a_finite_y_and_no_weight(shards, batch_by):
    sequence = NumeraiSequence(shards, missing_target="mask", batch_by=batch_by)
    seen = []
    for x, y, weight in batches(sequence):
        numbers = row_numbers(x)
        there = has_target(numbers)
        assert (y.dtype, weight.dtype, weight.shape) == (np.float32, np.float32, y.shape)
        np.testing.assert_array_equal(weight, there.astype(np.float32))
        np.testing.assert_array_equal(y, np.where(there, numbers, 0.5).astype(np.float32))
        seen += numbers.tolist()
    assert sorted(seen) == list(range(ROWS))


def test_mask_is_for_each_output_alone(shards, eras):
    target = {"main": "target", "late": ["target_full", "target_late"], "all": "target_full"}
    sequence = NumeraiSequence(shards, BATCH, target=target, missing_target="mask")
    for x, y, weight in batches(sequence):
        numbers = row_numbers(x)
        is_early = np.array([eras[number] <= "0010" for number in numbers])
        assert list(y) == list(weight) == ["main", "late", "all"]
        np.testing.assert_array_equal(weight["main"], has_target(numbers))
        np.testing.assert_array_equal(weight["late"], is_early)
        np.testing.assert_array_equal(weight["all"], np.ones(len(x)))
        np.testing.assert_array_equal(y["all"], numbers + 1)
        assert y["late"].shape == (len(x), 2)
        np.testing.assert_array_equal(y["late"][:, 0], numbers + 1)
        assert all(np.isfinite(part).all() for part in y.values())


def test_masked_batches_always_have_weights(shards):
    sequence = NumeraiSequence(shards, BATCH, target="target_full", missing_target="mask")
    for batch in batches(sequence):
        np.testing.assert_array_equal(batch[2], np.ones(len(batch[0]), np.float32))


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_y_may_be_x_itself(shards, dtype):
    for x, y in batches(NumeraiSequence(shards, BATCH, target="features", dtype=dtype)):
        assert y is x
    target = {"decoded": "features", "prediction": "target"}
    options = {"target": target, "missing_target": "mask", "features": shards.features[:9]}
    for x, y, weight in batches(NumeraiSequence(shards, BATCH, dtype=dtype, **options)):
        assert y["decoded"] is x
        assert x.shape == (len(x), 9)
        np.testing.assert_array_equal(weight["decoded"], np.ones(len(x), np.float32))
        np.testing.assert_array_equal(weight["prediction"], has_target(row_numbers(x)))


def test_weights_of_a_column(shards):
    options = {"target": "target_full", "sample_weight": "target_weight"}
    for x, y, weight in batches(NumeraiSequence(shards, BATCH, **options)):
        np.testing.assert_array_equal(y, row_numbers(x) + 1)
        np.testing.assert_array_equal(weight, (row_numbers(x) + 1.5).astype(np.float32))
        assert weight.dtype == np.float32


@pytest.mark.parametrize("batch_by", ["rows", "era"])
@pytest.mark.parametrize("run_rows", [1, 4])
def test_weight_of_each_era(shards, eras, batch_by, run_rows):
    weights = {era: 1 / int(era) for era in shards.eras}
    sequence = NumeraiSequence(
        shards, target="target_full", sample_weight=weights, batch_by=batch_by, run_rows=run_rows
    )
    for x, _, weight in batches(sequence):
        expected = np.array([weights[eras[number]] for number in row_numbers(x)], np.float32)
        np.testing.assert_array_equal(weight, expected)


def test_weights_of_a_function_of_eras_and_y(shards, eras):
    def weigh(of_rows, y):
        assert y.shape == of_rows.shape
        return (of_rows > "0005") * (1 + y)

    sequence = NumeraiSequence(shards, BATCH, target="target_full", sample_weight=weigh)
    for x, y, weight in batches(sequence):
        late = np.array([eras[number] > "0005" for number in row_numbers(x)])
        np.testing.assert_array_equal(weight, late * (1 + y))
        assert weight.dtype == np.float32


def test_weights_and_masks_are_multiplied_in_each_output(shards, eras):
    weights = {era: float(era) for era in shards.eras}
    sequence = NumeraiSequence(
        shards,
        BATCH,
        target={"a": "target", "b": "target_full", "c": "features"},
        missing_target="mask",
        sample_weight=weights,
    )
    for x, _, weight in batches(sequence):
        numbers = row_numbers(x)
        given = np.array([weights[eras[number]] for number in numbers], np.float32)
        np.testing.assert_array_equal(weight["a"], given * has_target(numbers))
        np.testing.assert_array_equal(weight["b"], given)
        np.testing.assert_array_equal(weight["c"], given)


def test_new_weights_hold_from_the_next_pass_on(shards):
    sequence = NumeraiSequence(
        shards, BATCH, target="target_full", sample_weight=dict.fromkeys(shards.eras, 1.0)
    )
    running = sequence.one_pass()
    assert (running[0][2] == 1).all()
    sequence.sample_weight = dict.fromkeys(shards.eras, 2.0)
    assert (running[1][2] == 1).all()
    assert (sequence.one_pass()[1][2] == 2).all()
    assert (sequence[1][2] == 2).all()
    sequence.sample_weight = None
    assert len(sequence[1]) == 2
    sequence.sample_weight = "target_weight"
    x, _, weight = sequence[1]
    np.testing.assert_array_equal(weight, (row_numbers(x) + 1.5).astype(np.float32))


def test_pickled_sequence_keeps_its_weights_and_targets(shards):
    options = {"missing_target": "mask", "sample_weight": dict.fromkeys(shards.eras, 0.5)}
    sequence = NumeraiSequence(shards, BATCH, target={"a": "target", "b": "features"}, **options)
    again = pickle.loads(pickle.dumps(sequence))
    for expected, found in zip(batches(sequence), batches(again), strict=True):
        np.testing.assert_array_equal(expected[1]["a"], found[1]["a"])
        np.testing.assert_array_equal(expected[2]["a"], found[2]["a"])


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
@pytest.mark.parametrize("policy", ["error", "mask"])
def test_a_function_of_weights_cannot_change_what_is_trained(shards, dtype, policy):
    """y is shown to it, but not given: neither arrays, nor the dict of them, nor x as y."""
    refused = []

    def arrays_of(y):
        return list(y.values()) if isinstance(y, dict) else [y]

    def weigh(eras, y):
        for array in (eras, *arrays_of(y)):
            with pytest.raises(ValueError, match="read-only"):
                array[0] = array[-1]
            with pytest.raises(ValueError, match="read-only"):
                np.copyto(array, array[::-1])
            refused.append(array)
        first = arrays_of(y)[0]
        if isinstance(y, dict):
            y.clear()
        return first if first.ndim == 1 and dtype != "int8" else np.ones(len(eras))

    options = {"dtype": dtype, "missing_target": policy}
    for target in (
        "target_full",
        ["target_full", "target_weight"],
        "features",
        {"a": "target_full", "b": "features"},
    ):
        plain = NumeraiSequence(shards, BATCH, target=target, **options)
        sequence = NumeraiSequence(shards, BATCH, target=target, sample_weight=weigh, **options)
        refused.clear()
        for number in range(len(sequence)):
            x, y, weight = sequence[number]
            expected_x, expected_y = plain[number][:2]
            np.testing.assert_array_equal(x, expected_x)
            assert type(y) is type(expected_y)
            for found, expected in zip(arrays_of(y), arrays_of(expected_y), strict=True):
                np.testing.assert_array_equal(found, expected)
                assert found.flags.writeable
            assert x.flags.writeable
            assert x.ctypes.data % 64 == 0
            assert all(part.flags.writeable for part in arrays_of(weight))
            is_x = target == "features" or (isinstance(target, dict) and y["b"] is x)
            assert is_x == any(np.shares_memory(x, part) for part in arrays_of(y))
        assert len(refused) == len(sequence) * (2 + isinstance(target, dict))


SPELLINGS = {
    "text": lambda era: era,
    "digits": lambda era: str(int(era)),
    "legacy": lambda era: f"era{int(era)}",
    "int": int,
    "NumPy": lambda era: np.int32(era),
    "NumPy text": np.str_,
    "Arrow": lambda era: pa.scalar(era),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("is_series", [False, True])
def test_weights_of_eras_in_any_spelling(shards, spelling, is_series):
    weights = {SPELLINGS[spelling](era): 1 / int(era) for era in shards.eras}
    if is_series:
        weights = pd.Series(weights.values(), index=pd.Index([*weights], name="era"))
    options = {"target": "target_full", "shuffle": False}
    sequence = NumeraiSequence(shards, BATCH, sample_weight=weights, **options)
    expected = {era: np.float32(1 / int(era)) for era in shards.eras}
    right = NumeraiSequence(shards, BATCH, sample_weight=expected, **options)
    for one in (sequence, pickle.loads(pickle.dumps(sequence))):
        assert describe_weights(one._targets.weights) == describe_weights(right._targets.weights)
        np.testing.assert_array_equal(one[1][2], right[1][2])


@pytest.mark.parametrize(
    "weights",
    [
        {"-0005": 0.5, "0006-": 2.0},
        {"0001, 2,era3,0004-0005": 0.5, "0006-": 2.0},
    ],
)
def test_weights_of_ranges_of_eras(shards, eras, weights):
    sequence = NumeraiSequence(shards, BATCH, target="target_full", sample_weight=weights)
    for x, _, weight in batches(sequence):
        late = np.array([eras[number] > "0005" for number in row_numbers(x)])
        np.testing.assert_array_equal(weight, np.where(late, 2, 0.5))


@pytest.mark.parametrize("kind", ["Float32", "int8", "object"])
def test_a_series_may_be_set_between_epochs_and_later_changes_change_nothing(shards, kind):
    sequence = NumeraiSequence(
        shards, BATCH, target="target_full", sample_weight=dict.fromkeys(shards.eras, 1.0)
    )
    weights = pd.Series(3, index=[*shards.eras, "9999"], dtype=kind)
    sequence.sample_weight = weights
    weights[:] = 9
    assert set(sequence[0][2]) == {3.0}
    assert dict(sequence.sample_weight)[shards.eras[0]] == 3


@pytest.mark.parametrize(
    "make",
    [
        list,
        tuple,
        pd.Index,
        pd.Series,
        np.array,
        pa.array,
        lambda names: dict.fromkeys(names).keys(),
    ],
)
def test_targets_are_any_sequence_of_names(shards, make):
    names = ["target_weight", "target_full"]
    sequence = NumeraiSequence(shards, BATCH, target=make(names))
    assert sequence.target == tuple(names)
    x, y = sequence[0]
    np.testing.assert_array_equal(y[:, 1], row_numbers(x) + 1)
    assert NumeraiSequence(shards, BATCH, target={"a": make(names)})[0][1]["a"].shape[1] == 2


WRONG_WEIGHTS = [
    (pd.Series(np.ones(13)), ValueError, "a Series with the index 0 to 12, expected an index"),
    (pd.Series(1.0, ["0001", "0001"]), ValueError, "found era '0001' twice in the index"),
    (pd.Series(1.0, ["n01", "n02"]), EraError, "found a weight of 'n01', which is not an era"),
    ({"0001": 1.0, 1: 2.0}, EraError, "sample_weight: '0001' and 1 both mean '0001'"),
    ({"-0007": 1.0, "0007-": 2.0}, EraError, "both mean '0007'"),
    ({1.0: 1.0}, TypeError, "sample_weight: found 1.0, expected names"),
    ({"0001-": None}, ValueError, "found None, expected a finite number"),
    ({"0001-": "1.0"}, TypeError, "sample_weight: found '1.0', expected a number"),
    (
        pd.DataFrame({"weight": np.ones(2)}, ["0001", "0002"]),
        TypeError,
        "expected the name of a column, a we",
    ),
    ({"0001": 1.0}, EraError, "no weight for era '0002' and 11 more"),
    ("target_wait", FeatureError, "unknown sample_weight column 'target_wait'; did you mean"),
    (
        dict.fromkeys(map("{:04d}".format, range(1, 14)), np.nan),
        ValueError,
        "expected finite numbers",
    ),
    (lambda eras, y: y[:-1], ValueError, r"found shape \(39,\), expected \(40,\)"),
    (lambda eras, y: y * np.inf, ValueError, "expected finite numbers"),
]


@pytest.mark.parametrize(("weight", "kind", "message"), WRONG_WEIGHTS)
def test_wrong_weights_are_refused(shards, weight, kind, message):
    with pytest.raises(kind, match=message):
        NumeraiSequence(shards, BATCH, target="target_full", sample_weight=weight)[0]


def test_weight_column_with_missing_values_is_refused(shards):
    for policy in ("error", "mask", "drop"):
        options = {"sample_weight": "target_late", "missing_target": policy}
        with pytest.raises(EraError, match="'target_late' is missing in"):
            NumeraiSequence(shards, target="target_full", **options)
    options["eras"] = "-0010"
    assert len(NumeraiSequence(shards, target="target_full", **options)[0]) == 3


WRONG_TARGETS = [
    ({"a": "target", "b": "targt"}, FeatureError, "unknown target 'targt'"),
    ({"a": ["target", "target"]}, FeatureError, "'target' is named twice"),
    ({"a": []}, ValueError, "target: found none for 'a'"),
    ({}, ValueError, "target: found none"),
    (["target", "features"], FeatureError, "unknown target 'features'"),
]


@pytest.mark.parametrize(("target", "kind", "message"), WRONG_TARGETS)
def test_wrong_target_is_refused(shards, target, kind, message):
    with pytest.raises(kind, match=message):
        NumeraiSequence(shards, target=target)
