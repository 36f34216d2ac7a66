"""Imported again: in a notebook, sequences of an older import of the package go on working."""

from __future__ import annotations

import importlib
import sys

import pytest
from networks import keras

import numerai_sequence as old
from numerai_sequence.feeding.keras_patches import Changes

NAME = old.__name__


@pytest.fixture(scope="module")
def new():
    """The package, imported once more; the older import comes back at the end."""
    before = {name: sys.modules.pop(name) for name in list(sys.modules) if _is_ours(name)}
    yield importlib.import_module(NAME)
    for name in filter(_is_ours, list(sys.modules)):
        del sys.modules[name]
    sys.modules.update(before)
    sys.modules[f"{NAME}.feeding.keras_compat"].carry_inputs()


def _is_ours(name):
    return name.split(".")[0] == NAME


def fit(sequence, **options):
    model = keras.Sequential([keras.layers.Input((14,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    model.fit(sequence, verbose=0, workers=3, max_queue_size=2, **options)
    return model


@pytest.mark.slow
def test_both_are_fed_whichever_was_made_last(shards, new, tmp_path):
    ours = old.NumeraiSequence(shards, 300)
    others = new.NumeraiSequence(shards, 300)  # of an open set of the older import
    old.NumeraiSequence(shards, 300)
    fit(others, epochs=2, validation_data=ours)  # the older import was the last
    new.NumeraiSequence(shards, 300)
    fit(ours, epochs=2)
    assert (ours.epoch, others.epoch) == (2, 2)
    for package, sequence, epochs in ((old, ours, 1), (new, others, 2)):
        sequence.epoch = 0
        fit(sequence, epochs=epochs, callbacks=[package.Resume(tmp_path / "state")])
        assert sequence.epoch == epochs


def test_what_a_model_was_fed_is_remembered(shards, new, tmp_path):
    model = fit(old.NumeraiSequence(shards, 300, features=shards.features[::-1]))
    for package in old, new:
        with pytest.raises((old.FeatureError, new.FeatureError), match="features in another order"):
            package.predict(model, shards, features=shards.features, progress=False)
    sequence = old.NumeraiSequence(shards, 300, features=shards.features[::-1])
    assert len(new.EraScores(sequence).score(model)) == len(sequence.eras)


def test_what_was_changed_is_put_back():
    class Owner:
        kept = 1

    class Heir(Owner):
        pass

    changes = Changes("copy")
    changes.set(Owner, "kept", 2)
    changes.set(Heir, "kept", 3)
    assert (Owner.kept, Heir.kept) == (2, 3)
    changes.undo()
    assert Owner.kept == 1
    assert "kept" not in vars(Heir)
