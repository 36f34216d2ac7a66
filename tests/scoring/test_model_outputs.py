"""Models: how wide they are, and what their outputs are called."""

from __future__ import annotations

import numpy as np
import pytest
from networks import keras, model_of, row_kernel, row_model

from numerai_sequence import FeatureError
from numerai_sequence.scoring.model_outputs import check_width, input_width, name_columns, run_batch

ROWS = row_kernel(14)
X = np.zeros((3, 14), np.float32)


def columns_of(model, output=None):
    return name_columns(model, run_batch(model, X), output)


def test_a_model_says_how_wide_it_is():
    assert input_width(row_model(17)) == 17
    layers = keras.layers
    assert input_width(keras.Sequential([layers.Input((5,)), layers.Dense(1)])) == 5
    assert input_width(keras.Sequential([layers.Dense(1)])) is None
    inputs = [layers.Input((3,)), layers.Input((4,))]
    assert input_width(keras.Model(inputs, layers.Concatenate()(inputs))) is None
    open_input = layers.Input((None,))
    assert input_width(keras.Model(open_input, open_input * 2)) is None


def test_another_width_is_an_error_that_says_both():
    check_width(row_model(), 14, "here", "do this")
    with pytest.raises(FeatureError, match=r"here: found 1,050 features, expected 14.*; do this"):
        check_width(row_model(), 1050, "here", "do this")


def test_one_value_a_row_is_the_prediction():
    assert columns_of(row_model()).names == ("prediction",)
    assert columns_of(model_of(ROWS, names=["a"], as_dict=True)).names == ("prediction",)


def test_columns_are_named_by_output_and_place():
    wide = np.concatenate([ROWS, ROWS], axis=1)
    assert columns_of(model_of(wide, names=["a"])).names == ("a_0", "a_1")
    for as_dict in (False, True):
        model = model_of(ROWS, wide, names=["a", "b"], as_dict=as_dict)
        assert columns_of(model).names == ("a", "b_0", "b_1")
        assert columns_of(model, "b").names == ("b_0", "b_1")
        assert columns_of(model, "a").names == ("prediction",)


def test_a_dict_of_outputs_is_sorted():
    model = model_of(ROWS, ROWS, names=["z", "a"], as_dict=True)
    assert columns_of(model).names == ("a", "z")
    assert columns_of(model).parts == (("a", slice(None)), ("z", slice(None)))


def test_two_columns_of_one_name_are_an_error():
    wide = np.concatenate([ROWS, ROWS], axis=1)
    model = model_of(wide, ROWS, names=["dense", "dense_1"])
    with pytest.raises(ValueError, match="found two output columns named 'dense_1'"):
        columns_of(model)
    # The output of that name, not the column.
    assert columns_of(model, "dense_1").parts == ((1, slice(None)),)


def test_an_unknown_output_is_named():
    with pytest.raises(ValueError, match="found 'c', expected one of a, b"):
        columns_of(model_of(ROWS, ROWS, names=["a", "b"]), "c")


def test_columns_are_taken_as_float32():
    outputs = [np.arange(3.0), np.arange(12, dtype=np.float16).reshape(3, 2, 2)]
    columns = name_columns(object(), outputs, None)
    assert columns.names == tuple(f"output_{name}" for name in ("0", "1_0", "1_1", "1_2", "1_3"))
    taken = columns.take(outputs, 3)
    assert taken.dtype == np.float32
    assert taken.tolist() == [[0, 0, 1, 2, 3], [1, 4, 5, 6, 7], [2, 8, 9, 10, 11]]


def test_an_output_without_the_rows_is_an_error():
    columns = name_columns(object(), np.zeros((3, 1)), None)
    with pytest.raises(ValueError, match="for 3 rows of x, expected"):
        columns.take(np.zeros((1, 1)), 3)
    with pytest.raises(TypeError, match="several arrays"):
        name_columns(object(), {"a": [np.zeros((3, 1))]}, None)
