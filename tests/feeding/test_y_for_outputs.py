"""Y for outputs: y finds its output in whatever a model returns, or it is said why it cannot."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
from networks import keras
from numerai_tables import row_digits

from numerai_sequence import FeatureError, NumeraiSequence, predict
from numerai_sequence.feeding.y_for_outputs import (
    Told,
    arrange_named,
    check_losses,
    losses_of,
    names_of,
    spread,
)

IS_3 = hasattr(keras, "ops")
ROWS, FEATURES = 1037, 14
GIVEN = ("decoded", "main")
BOTH = {"decoded": "features", "main": "target"}
X = row_digits(np.arange(ROWS), FEATURES) / np.float32(4)
DECODED, MAIN = float((X**2).mean()), float((np.arange(ROWS, dtype=np.float64) ** 2).mean())


def told(loss="mse", *, known=None, given=GIVEN, **options):
    return Told(known, given, loss, **options)


def test_names_are_those_of_the_targets_where_the_model_has_none():
    y = {"main": 2, "decoded": 1}
    assert arrange_named(y, ("p", "q"), told()) == (1, 2)
    assert arrange_named(y, ["p", "q"], told()) == [1, 2]
    assert arrange_named(y, [["p"], "q"], told()) == [[1], 2]
    assert arrange_named(y, ["p", "q"], told(known=("main", "decoded"))) == [2, 1]
    assert arrange_named(y, {"main": "q", "decoded": "p"}, told()) == {"main": 2, "decoded": 1}
    assert arrange_named({"main": 2}, {"main": "q", "decoded": "p"}, told())["decoded"] is None
    assert arrange_named({"main": 2}, "p", told()) == 2
    assert arrange_named({"main": 2}, ["p"], told(given=("main",))) == [2]
    assert names_of(["p", "q", "r"], told()) is None


def test_a_list_goes_by_the_order_of_the_targets_where_the_model_returns_a_dict():
    returned = {"main": "q", "decoded": "p"}
    assert arrange_named((1, 2), returned, told()) == {"decoded": 1, "main": 2}
    assert arrange_named((1, 2), returned, told(is_ours=False)) == (1, 2)
    assert arrange_named((1, 2), ["p", "q"], told()) == (1, 2)
    assert arrange_named((1, 2), [["p"], "q"], told()) == [[1], 2]


def test_one_name_is_that_of_the_only_output_with_a_loss():
    one = told([None, "mse"], given=("main",))
    assert arrange_named({"main": 2}, ("p", "q"), one) == (None, 2)
    assert spread(2, ("p", "q"), one) == (None, 2)
    assert losses_of({"main": "q", "decoded": "p"}, told(["a", "b"])) == ["b", "a"]


@pytest.mark.parametrize(
    ("y", "returned", "known", "message"),
    [
        (
            {"mian": 1},
            ["p", "q"],
            GIVEN,
            "'mian', expected the outputs of the model: 'decoded', 'main'; did",
        ),
        (
            {"mian": 1},
            {"main": "q"},
            None,
            "'mian', expected the outputs of the model: 'main'; did you mean",
        ),
        ({"main": 1}, ["p", "q", "r"], None, "returns 3 outputs without names; name all of them"),
        ({"main": 1, "decoded": 2}, "p", None, "expected one: the model returns a single array"),
        (
            {"main": 1},
            {"main": ["p", "q"]},
            None,
            "for the model's output 'main', which",
        ),
    ],
)
def test_what_cannot_be_known_is_an_error_that_says_what_to_do(y, returned, known, message):
    with pytest.raises(FeatureError, match=message):
        arrange_named(y, returned, told(known=known))


def test_a_loss_needs_a_target_and_an_output():
    with pytest.raises(FeatureError, match=r"'decoded', which has a loss; .*'decoded': None, 'ma"):
        check_losses([None, 2], ["p", "q"], told())
    check_losses([None, 2], ["p", "q"], told({"main": "mse"}))
    with pytest.raises(FeatureError, match="loss: found an output 'decoder', expected"):
        check_losses([1, 2], ["p", "q"], told({"decoder": "mse"}))
    with pytest.raises(FeatureError, match=r"one array y for a model of 2 outputs.*'decoded': ..."):
        spread(1, ["p", "q"], told())


def test_losses_by_name_need_outputs_with_names():
    unnamed = told({"main": "mse"}, given=None)
    for returned in (["p", "q"], ("p", "q")):
        with pytest.raises(FeatureError, match=r"losses by name, 'main', .* 2 outputs without nam"):
            spread(1, returned, unnamed)
    assert spread(1, {"main": "q", "decoded": "p"}, unnamed) == {"main": 1, "decoded": None}
    assert spread(1, ["p", "q"], told({"main": "mse"}, given=GIVEN)) == [None, 1]


class Network(keras.Model):
    """Predicts zero, twice, in any form."""

    def __init__(self, form):
        super().__init__()
        self.decoder = keras.layers.Dense(FEATURES, kernel_initializer="zeros")
        self.main, self.form = keras.layers.Dense(1, kernel_initializer="zeros"), form

    def call(self, x):
        return self.form(self.decoder(x), self.main(x))


class Outputs(NamedTuple):
    decoded: Any
    main: Any


FORMS = {
    "fields": Outputs,
    "tuple": lambda decoded, main: (decoded, main),
    "dict": lambda decoded, main: {"main": main, "decoded": decoded},
}


def fitted(form, sequence, **options):
    model = Network(FORMS[form])
    model.compile(keras.optimizers.SGD(0.0), **options)
    return model, model.fit(sequence, verbose=0).history


@pytest.mark.parametrize(
    ("form", "loss"),
    [("tuple", "mse"), ("tuple", {"decoded": "mse", "main": "mse"}), ("dict", "mse")],
)
def test_outputs_without_names_are_compared_in_the_order_of_the_targets(shards, form, loss):
    sequence = NumeraiSequence(shards, ROWS, target=BOTH)
    model, history = fitted(form, sequence, loss=loss, metrics={"main": ["mse"]})
    assert history["decoded_loss"] == [pytest.approx(DECODED, rel=1e-4)]
    assert history["main_loss"] == history["main_mse"] == [pytest.approx(MAIN, rel=1e-4)]
    other = NumeraiSequence(shards, ROWS, target=dict(reversed(BOTH.items())))
    found = model.evaluate(other, verbose=0, return_dict=True)
    assert found["decoded_loss"] == pytest.approx(DECODED, rel=1e-4)
    assert list(predict(model, shards, output="main", progress=False)) == ["prediction"]
    with pytest.raises(ValueError, match="expected one of decoded, main; did you mean main"):
        predict(model, shards, output="mian", progress=False)


def test_outputs_are_known_by_the_fields_of_a_namedtuple(shards):
    sequence = NumeraiSequence(shards, ROWS, target=dict(reversed(BOTH.items())))
    model, _ = fitted("fields", sequence, loss="mse")
    found = model.evaluate(sequence, verbose=0, return_dict=True)
    assert found["decoded_loss"] == pytest.approx(DECODED, rel=1e-4)
    assert found["main_loss"] == pytest.approx(MAIN, rel=1e-4)
    assert list(predict(model, shards, output="main", progress=False)) == ["prediction"]
    assert len(predict(model, shards, output="decoded", progress=False).columns) == FEATURES


def test_some_outputs_alone_may_have_a_loss(shards):
    form = "tuple"
    sequence = NumeraiSequence(shards, ROWS, target=BOTH)
    _, history = fitted(form, sequence, loss={"main": "mse"})
    assert history["loss"] == [pytest.approx(MAIN, rel=1e-4)]
    with pytest.raises(FeatureError, match="'decoder', expected the outputs of the model: "):
        fitted(form, sequence, loss={"decoder": "mse"})


@pytest.mark.parametrize("form", FORMS)
def test_sample_weights_find_outputs_without_names(shards, form):
    """Those of a target alone, in the other order: Keras takes them by place."""
    weights = np.where(np.arange(ROWS) % 3 == 0, 4, 0).astype(np.float32)

    class Weighted(NumeraiSequence):
        def __getitem__(self, index):
            x, y = super().__getitem__(index)
            share = weights[y["main"].astype(int)]
            return x, y, {"main": share, "decoded": np.ones(len(x), np.float32)}

    _, history = fitted(form, Weighted(shards, ROWS, target=BOTH), loss="mse")
    expected = np.average(np.arange(ROWS, dtype=np.float64) ** 2 * weights)
    assert history["main_loss"] == [pytest.approx(expected, rel=1e-4)]
    assert history["decoded_loss"] == [pytest.approx(DECODED, rel=1e-4)]


class Tuples(NumeraiSequence):
    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return x, tuple(y.values())


def test_tuples_of_a_class_of_ones_own_are_left_as_they_are(shards):
    x = keras.Input((FEATURES,))
    layers = [keras.layers.Dense(n, name=name) for n, name in ((FEATURES, "decoded"), (1, "main"))]
    outputs = [layer(x) for layer in layers]
    model = keras.Model(x, outputs)
    for layer in layers:
        layer.set_weights([np.zeros_like(weight) for weight in layer.get_weights()])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    history = model.fit(Tuples(shards, ROWS, target=BOTH), verbose=0).history
    assert history["main_loss"] == [pytest.approx(MAIN, rel=1e-4)]


def test_a_list_of_targets_is_not_that_of_two_outputs(shards):
    sequence = NumeraiSequence(shards, ROWS, target=["target", "target_b"])
    with pytest.raises(FeatureError, match="found one array y for a model of 2 outputs"):
        fitted("tuple", sequence, loss="mse")
