"""Keras private names: each one is looked for before anything is changed."""

from __future__ import annotations

import importlib
import inspect
import json
from pathlib import Path

import pytest
from keras_models import IS_KERAS_3, PACKAGE
from shard_sets import write_set

from numerai_sequence.feeding.keras_private_names import (
    KERAS_2,
    KERAS_3,
    definitions,
    describe_missing,
    missing,
    owner_of,
    version_of,
)

keras = importlib.import_module(PACKAGE)
# The parameters of each function as the known versions have them, several where these differ.
KNOWN = Path(__file__).parent / "keras_signatures.json"
HERE = [
    one
    for one in (KERAS_3 if IS_KERAS_3 else KERAS_2)
    if one.since <= version_of(keras) < one.until
    if one.backend in ("", keras.backend.backend())
]
NAMES = [f"{one.owner}.{one.name}" for one in HERE]
USED = [(one, used) for one in HERE for used in one.uses.split() if used not in one.takes]
TAKEN = [(one, taken) for one in HERE for taken in one.takes.split()]


def signatures():
    """The parameters of each function that is relied on, in the Keras that is running."""
    return {
        name: [*inspect.signature(definitions(one, keras)[0]).parameters]
        for one, name in zip(HERE, NAMES, strict=True)
    }


def test_nothing_is_missing():
    assert missing(keras) == []


def test_signatures_are_known():
    """A canary: Keras has changed something that is relied on, though all may still work.

    Read what has changed, run the contract, and add the new signature to the known ones.
    """
    known = json.loads(KNOWN.read_text())["3" if IS_KERAS_3 else "2"]
    assert {name: found for name, found in signatures().items() if found not in known[name]} == {}


def test_what_is_looked_for_is_in_the_known_signatures():
    known = json.loads(KNOWN.read_text())
    for generation, table in {"2": KERAS_2, "3": KERAS_3}.items():
        names = {f"{one.owner}.{one.name}" for one in table}
        assert names == set(known[generation])


@pytest.mark.parametrize(
    "one", [one for one in HERE if one.name != "__init__"], ids=lambda one: one.name
)
def test_a_function_that_is_renamed_is_missed(one, monkeypatch):
    owner = owner_of(one.owner, keras)
    for holder in getattr(owner, "__mro__", [owner]):
        if one.name in vars(holder):
            monkeypatch.setattr(holder, f"{one.name}_2", vars(holder)[one.name], raising=False)
            monkeypatch.delattr(holder, one.name)
    assert f"{one.owner.replace(':', '.')}.{one.name}" in missing(keras)


def changed(function, **changes):
    """A function with another code, wrapped by what wrapped it."""
    inner = inspect.unwrap(function)
    code = inner.__code__

    def other(text):
        if isinstance(text, tuple):
            return tuple(map(other, text))
        return changes.get(text, text) if isinstance(text, str) else text

    return inner, code.replace(
        co_names=tuple(map(other, code.co_names)),
        co_consts=tuple(map(other, code.co_consts)),
        co_varnames=tuple(map(other, code.co_varnames)),
    )


@pytest.mark.parametrize(("one", "used"), USED, ids=[f"{o.name}-{u}" for o, u in USED])
def test_an_attribute_that_is_renamed_is_missed(one, used, monkeypatch):
    for function in definitions(one, keras):
        if hasattr(inspect.unwrap(function), "__code__"):
            inner, code = changed(function, **{used: f"{used}_2"})
            monkeypatch.setattr(inner, "__code__", code)
    place = f"{one.owner.replace(':', '.')}.{one.name}"
    assert f"{used} in {place}" in missing(keras)


@pytest.mark.parametrize(("one", "taken"), TAKEN, ids=[f"{o.name}-{t}" for o, t in TAKEN])
def test_a_parameter_that_is_renamed_is_missed(one, taken, monkeypatch):
    inner, code = changed(definitions(one, keras)[0], **{taken: f"{taken}_2"})
    monkeypatch.setattr(inner, "__code__", code)
    place = f"{one.owner.replace(':', '.')}.{one.name}"
    assert f"{place}({taken}=)" in missing(keras)


def test_the_message_names_the_version_what_is_missing_and_the_remedy():
    message = describe_missing(keras, ["a in b.c", "d"])
    assert message.startswith(f"{PACKAGE} {keras.__version__}: found no a in b.c, no d; ")
    assert "Keras 3.0 to 3.16" in message
    assert "pip install '" in message


RENAMED = """
import {package} as keras
from numerai_sequence import NumeraiSequence, NumeraiSequenceError
from numerai_sequence.feeding.keras_private_names import KERAS_2, KERAS_3, version_of, owner_of

table = KERAS_3 if version_of(keras) >= (3, 0) else KERAS_2
adapter = owner_of(table[0].owner, keras)
adapter._standardized_batch = adapter._standardize_batch
holder = next(one for one in adapter.__mro__ if "_standardize_batch" in vars(one))
del holder._standardize_batch

def state():
    inside = [cell.cell_contents for cell in keras.Model.fit.__closure__]
    return dict(vars(adapter)), dict(vars(keras.Model)), inside

before = state()
for _ in range(2):
    try:
        NumeraiSequence({folder!r}, batch_size=100)
    except NumeraiSequenceError as error:
        assert "_standardize_batch" in str(error) and "pip install" in str(error), error
    else:
        raise AssertionError("no error")
assert before == state()
"""


def test_nothing_is_changed_where_something_is_missing(forked, tmp_path):
    folder = write_set(tmp_path, rows=300, features=14, num_shards=2)
    done = forked(RENAMED.format(package=PACKAGE, folder=str(folder)))
    assert done.returncode == 0, done.stderr
