"""Forms: what a model's outputs are called, and the form that y gets for them."""

from __future__ import annotations

import numpy as np
import pytest
from networks import keras, model_of

from numerai_sequence import FeatureError
from numerai_sequence.feeding.output_forms import arrange, arrays_of, find_form

ONE, TWO = np.zeros((3, 1), np.float32), np.zeros((3, 2), np.float32)


def test_list_of_outputs_has_the_order_of_the_model():
    model = model_of(ONE, TWO, names=["b", "a"])
    assert find_form(model, ["a", "b"]) == ("b", "a")
    assert find_form(model, ["a"]) is None  # Keras knows which of them are trained


def test_dict_of_outputs_stays_one():
    model = model_of(ONE, TWO, names=["b", "a"], as_dict=True)
    assert find_form(model, ["a", "b"]) is None
    assert find_form(model, ["a"]) is None


def test_outputs_of_a_dict_go_by_its_keys_and_not_by_their_layers():
    x = keras.Input((3,))
    model = keras.Model(x, {"key": keras.layers.Dense(1, name="layer")(x)})
    assert find_form(model, ["key"]) is None
    with pytest.raises(FeatureError, match="'layer', expected the outputs of the model: 'key'"):
        find_form(model, ["layer"])


def test_single_output_is_no_dict():
    assert find_form(model_of(ONE, names=["a"]), ["a"]) == "a"
    assert find_form(keras.Sequential([keras.layers.Dense(1)]), ["any"]) == "any"


def test_unknown_output_is_named_with_those_that_there_are():
    for as_dict in (True, False):
        model = model_of(ONE, TWO, names=["main", "late"], as_dict=as_dict)
        with pytest.raises(
            FeatureError, match=r"'mian', expected .* 'main', 'late'; did"
        ) as caught:
            find_form(model, ["late", "mian", "other"])
        assert caught.value.names == ["mian", "other"]
    with pytest.raises(FeatureError, match=r"'late', expected the outputs of the model: 'main'$"):
        find_form(model_of(ONE, names=["main"]), ["main", "late"])


def test_model_that_says_nothing_of_its_outputs_takes_a_dict():
    class Silent(keras.Model):
        def call(self, x):
            return {"a": x}

    assert find_form(Silent(), ["whatever"]) is None


def test_y_and_weights_get_the_form():
    y, weights = {"a": 1, "b": 2}, {"a": 3, "b": 4}
    assert arrange(("x", y, weights), ("b", "a")) == ("x", (2, 1), (4, 3))
    assert arrange(("x", y), ("a", "b")) == ("x", (1, 2))
    assert arrange(("x", y, weights), "a") == ("x", 1, 3)
    assert arrange(("x", y, weights), None) == ("x", y, weights)
    assert arrange("x", "a") == "x"


def test_arrays_of_a_batch():
    assert list(arrays_of(("x", {"a": "y", "b": "z"}, ("v", "w")))) == ["x", "y", "z", "v", "w"]
    assert list(arrays_of("x")) == ["x"]
