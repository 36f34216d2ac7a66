"""Encoding: digits to bytes and back, against the formula written out again."""

from __future__ import annotations

import itertools
import pickle
import warnings

import numpy as np
import pytest

from numerai_sequence.format.encoding import to_digits
from numerai_sequence.format.encodings import COMPACT, ENCODINGS

each_encoding = pytest.mark.parametrize("encoding", ENCODINGS)
each_golden_encoding = pytest.mark.parametrize("encoding", ["packed", "int8"])
each_count = pytest.mark.parametrize("features", [*range(1, 21), 3555])
each_dtype = pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])

GOLDEN_DIGITS = np.array([[4, 0, 1, 2, 3, 4, 0], [4, 4, 4, 4, 4, 4, 4], [0, 1, 2, 3, 4, 0, 1]])
GOLDEN_BYTES = {
    "packed": [b"\x0e\x0f\x15", b"\x7c\x18\x18", b"\x28\x15\x02"],
    "int8": [
        b"\x04\x00\x01\x02\x03\x04\x00",
        b"\x04\x04\x04\x04\x04\x04\x04",
        b"\x00\x01\x02\x03\x04\x00\x01",
    ],
}


def random_digits(rows, features):
    return np.random.default_rng([rows, features]).integers(0, 5, (rows, features), np.uint8)


def by_the_formula(encoding, digits):
    """byte[j] = f[j] + 5 f[j + K] + 25 f[j + 2K], where a feature past the end counts 0."""
    powers, features = ENCODINGS[encoding].powers, digits.shape[1]
    width = (features + len(powers) - 1) // len(powers)
    encoded = np.zeros((len(digits), width), int)
    for byte in range(width):
        for place, power in enumerate(powers):
            if byte + place * width < features:
                encoded[:, byte] += power * digits[:, byte + place * width].astype(int)
    return encoded.astype(np.uint8)


def encode(encoding, digits, features_per_block):
    blocks = ENCODINGS[encoding].cut_blocks(digits.shape[1], features_per_block=features_per_block)
    parts = [
        ENCODINGS[encoding].encode_block([digits[:, f] for f in block.features], block)
        for block in blocks
    ]
    return np.concatenate(parts, axis=1)


def as_dtype(digits, dtype):
    return digits.astype(np.int8) if dtype == "int8" else (digits / 4).astype(dtype)


def decode(decoder, encoded):
    """Decode into a batch that holds other values before."""
    batch = np.full((len(encoded), decoder.width), 77, decoder.dtype)
    decoder(encoded, batch)
    return batch


def assert_same(found, expected):
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


@each_golden_encoding
def test_bytes_of_today_are_the_bytes_of_version_1(encoding):
    for width in (1, 3, 1000):
        rows = encode(encoding, GOLDEN_DIGITS.astype(np.uint8), width)
        assert [row.tobytes() for row in rows] == GOLDEN_BYTES[encoding]


@each_golden_encoding
@each_dtype
def test_bytes_of_version_1_are_still_read(encoding, dtype):
    encoded = np.array([list(row) for row in GOLDEN_BYTES[encoding]], np.uint8)
    assert_same(
        decode(ENCODINGS[encoding].decoder(7, dtype=dtype), encoded), as_dtype(GOLDEN_DIGITS, dtype)
    )


@each_encoding
@each_dtype
@pytest.mark.parametrize("columns", [None, [3, 0, 6]])
@pytest.mark.parametrize("block_values", [1, 30, 1 << 19])
def test_chosen_rows_are_decoded_as_if_they_were_all(
    monkeypatch, encoding, dtype, columns, block_values
):
    monkeypatch.setattr("numerai_sequence.format.encoding._BLOCK_VALUES", block_values)
    encoded = by_the_formula(encoding, random_digits(50, 7))
    columns = None if columns is None else np.array(columns)
    decoder = ENCODINGS[encoding].decoder(7, columns=columns, dtype=dtype)
    rows = np.array([0, 3, 3, 7, 20, 21, 22, 49])
    batch = np.empty((len(rows), decoder.width), dtype)
    decoder(encoded, batch, rows)
    assert_same(batch, decode(decoder, encoded[rows]))


def test_packed_row_is_a_third_as_long_rounded_up():
    assert [
        ENCODINGS["packed"].row_bytes(features) for features in (1, 2, 3, 4, 5, 6, 7, 3555)
    ] == [*(1, 1, 1, 2, 2, 2, 3, 1185)]
    assert [ENCODINGS["int8"].row_bytes(features) for features in (1, 7, 3555)] == [1, 7, 3555]


def test_only_packed_values_are_unsigned():
    assert ENCODINGS["packed"].value_dtype == "uint8"
    assert ENCODINGS["int8"].value_dtype == "int8"


@each_encoding
@each_count
def test_blocks_cover_each_byte_and_each_feature_once(encoding, features):
    for features_per_block in (1, 2, 3, 7, 500, 10**9):
        blocks = ENCODINGS[encoding].cut_blocks(features, features_per_block=features_per_block)
        assert blocks[0].start == 0
        assert blocks[-1].stop == ENCODINGS[encoding].row_bytes(features)
        assert all(a.stop == b.start for a, b in itertools.pairwise(blocks))
        covered = [feature for block in blocks for feature in block.features]
        assert sorted(covered) == list(range(features))
        for block in blocks:
            assert block.width == block.stop - block.start >= 1
            assert len(block.features) <= max(features_per_block, len(ENCODINGS[encoding].powers))


@each_encoding
@each_count
def test_blocks_joined_are_the_formula(encoding, features):
    digits = random_digits(11, features)
    expected = by_the_formula(encoding, digits)
    for features_per_block in (1, 5, 7, 500, 10**9):
        assert_same(encode(encoding, digits, features_per_block), expected)


@each_encoding
def test_encoded_block_is_row_major_for_any_number_of_rows(encoding):
    for rows in (0, 1, 2, 300):
        digits = random_digits(rows, 8)
        [block] = ENCODINGS[encoding].cut_blocks(8, features_per_block=100)
        encoded = ENCODINGS[encoding].encode_block(list(digits.T), block)
        assert encoded.shape == (rows, ENCODINGS[encoding].row_bytes(8))
        assert encoded.flags.c_contiguous
        assert_same(encoded, by_the_formula(encoding, digits))


@each_encoding
def test_encoding_leaves_the_columns_as_they_are(encoding):
    digits = random_digits(20, 9)
    columns = [column.copy() for column in digits.T]
    for column in columns:
        column.setflags(write=False)
    [block] = ENCODINGS[encoding].cut_blocks(9, features_per_block=100)
    ENCODINGS[encoding].encode_block(columns, block)
    assert_same(np.stack(columns, axis=1), digits)


@each_encoding
@each_count
def test_round_trip_is_exact(encoding, features):
    digits = random_digits(13, features)
    encoded = encode(encoding, digits, 7)
    encoded.setflags(write=False)
    for dtype in ("float32", "float16", "int8"):
        decoded = decode(ENCODINGS[encoding].decoder(features, dtype=dtype), encoded)
        assert decoded.flags.c_contiguous
        assert_same(decoded, as_dtype(digits, dtype))


@each_dtype
def test_every_packed_byte_is_split_into_its_three_digits(dtype):
    digits = np.array(list(itertools.product(range(5), repeat=3)), np.uint8)
    encoded = (digits @ [1, 5, 25]).astype(np.uint8)[:, np.newaxis]
    assert len(np.unique(encoded)) == 125
    assert_same(
        decode(ENCODINGS["packed"].decoder(3, dtype=dtype), encoded), as_dtype(digits, dtype)
    )


def test_floats_are_digits_over_four():
    encoded = np.arange(5, dtype=np.uint8)[:, np.newaxis]
    for dtype in ("float32", "float16"):
        decoded = decode(ENCODINGS["int8"].decoder(1, dtype=dtype), encoded)
        assert decoded.ravel().tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]


@each_encoding
@each_dtype
@pytest.mark.parametrize("features", [1, 2, 3, 4, 7, 8, 20, 3555])
def test_chosen_features_come_in_the_order_asked_for(encoding, dtype, features):
    digits = random_digits(9, features)
    encoded = by_the_formula(encoding, digits)
    rng = np.random.default_rng(features)
    for chosen in {1, 2, features // 2, features - 1, features} - {0}:
        columns = rng.permutation(features)[: min(chosen, features)]
        decoder = ENCODINGS[encoding].decoder(features, columns=columns, dtype=dtype)
        assert decoder.width == len(columns)
        assert_same(decode(decoder, encoded), as_dtype(digits[:, columns], dtype))


@each_encoding
@pytest.mark.parametrize("features", range(1, 21))
def test_each_feature_can_be_had_alone(encoding, features):
    digits = random_digits(6, features)
    encoded = by_the_formula(encoding, digits)
    for feature in range(features):
        decoder = ENCODINGS[encoding].decoder(features, columns=np.array([feature]), dtype="int8")
        assert_same(decode(decoder, encoded), digits[:, [feature]].astype(np.int8))


@each_encoding
@each_dtype
def test_no_rows_give_a_batch_without_rows(encoding, dtype):
    for columns in (None, np.array([4, 0])):
        decoder = ENCODINGS[encoding].decoder(5, columns=columns, dtype=dtype)
        decoded = decode(decoder, np.empty((0, ENCODINGS[encoding].row_bytes(5)), np.uint8))
        assert decoded.shape == (0, decoder.width)
        assert decoded.dtype == dtype


@each_encoding
@each_dtype
def test_decoder_survives_pickling(encoding, dtype):
    digits = random_digits(7, 10)
    encoded = by_the_formula(encoding, digits)
    for columns in (None, np.array([9, 2, 5])):
        decoder = ENCODINGS[encoding].decoder(10, columns=columns, dtype=dtype)
        again = pickle.loads(pickle.dumps(decoder))
        assert_same(decode(again, encoded), decode(decoder, encoded))


@each_encoding
@each_count
def test_rows_are_encoded_as_their_blocks_are(encoding, features):
    digits = random_digits(11, features)
    assert_same(ENCODINGS[encoding].encode(digits), by_the_formula(encoding, digits))


def test_table_names_each_encoding_as_it_is_called_and_the_default_first():
    assert all(name == kind.name for name, kind in ENCODINGS.items())
    assert [*ENCODINGS][:2] == [*GOLDEN_BYTES]
    assert ENCODINGS["packed"] is COMPACT


INTEGERS = ["int8", "uint8", "int16", "uint16", "int32", "int64", "uint64"]
FLOATS = ["float16", "float32", "float64"]
NO_DIGITS = [
    *((dtype, value) for dtype in INTEGERS for value in (5, 127)),
    *((dtype, value) for dtype in ("int8", "int16", "int32", "int64") for value in (-1, -128)),
    *(("uint8", value) for value in (128, 255)),
    # These would be digits if only their low byte counted.
    *((dtype, value) for dtype in INTEGERS[2:] for value in (256, 260, 512)),
    *(("int64", value) for value in (2**32, -(2**63), 2**63 - 1)),
    ("uint64", 2**64 - 1),
    *((dtype, value) for dtype in FLOATS for value in ("nan", "inf", "-inf", 0.3, 1.25, -0.25)),
    *((dtype, value) for dtype in FLOATS for value in (0.125, 2.0, 3.0, 4.0, 64.0)),
    ("float64", 0.25 + 1e-12),
    ("float64", 5e-324),
]


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_are_digits_as_they_are(dtype):
    digits, invalid = to_digits(np.array([4, 0, 3, 1, 2], dtype))
    assert invalid is None
    assert_same(digits, np.array([4, 0, 3, 1, 2], np.uint8))


@pytest.mark.parametrize("dtype", FLOATS)
def test_floats_are_digits_times_a_quarter(dtype):
    digits, invalid = to_digits(np.array([1, 0, 0.75, 0.25, 0.5, -0.0], dtype))
    assert invalid is None
    assert_same(digits, np.array([4, 0, 3, 1, 2, 0], np.uint8))


@pytest.mark.parametrize("dtype", INTEGERS + FLOATS)
def test_no_values_are_valid(dtype):
    digits, invalid = to_digits(np.empty(0, dtype))
    assert invalid is None
    assert_same(digits, np.empty(0, np.uint8))


@pytest.mark.parametrize(("dtype", "value"), NO_DIGITS)
def test_first_value_that_is_no_digit_is_reported(dtype, value):
    for rows in ([0], [3], [3, 4, 9], [9], range(10)):
        values = np.ones(10, dtype)
        values[list(rows)] = value
        assert to_digits(values)[1] == rows[0]


@pytest.mark.parametrize("dtype", INTEGERS + FLOATS)
def test_strided_and_read_only_values_are_digits_too(dtype):
    scale = 4 if dtype in FLOATS else 1
    table = (random_digits(30, 4) / scale).astype(dtype)
    table.setflags(write=False)
    digits, invalid = to_digits(table[::3, 1])
    assert invalid is None
    assert_same(digits, random_digits(30, 4)[::3, 1])


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_bytes_are_not_copied(dtype):
    values = np.array([4, 0, 2], dtype)
    assert np.shares_memory(to_digits(values)[0], values)


@pytest.mark.parametrize("dtype", FLOATS)
def test_largest_float_is_reported_without_a_warning(dtype):
    values = np.array([0, 1, np.finfo(dtype).max, -np.finfo(dtype).max], dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert to_digits(values)[1] == 2
