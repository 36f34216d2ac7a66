"""Errors: one message, the data of the class, and a safe way through a pickle."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest

import numerai_sequence
from numerai_sequence import (
    CorruptShardError,
    EraError,
    FeatureError,
    ManifestError,
    NumeraiSequenceError,
    OutOfMemoryError,
    OutputError,
    OutputExistsError,
    ResumeError,
    SourceError,
    WorkerError,
)
from numerai_sequence.errors import check_known, close_matches

PATH = Path("data") / "train.parquet"
DATA = {
    NumeraiSequenceError: {},
    SourceError: {"path": PATH, "column": "feature_a", "row": 12},
    OutputExistsError: {"path": PATH},
    OutputError: {"path": PATH, "errno": 28},
    OutOfMemoryError: {"path": PATH},
    ManifestError: {"path": PATH, "found": 2, "expected": 1},
    CorruptShardError: {"path": PATH, "found": "d0e1", "expected": "f2a3"},
    EraError: {"eras": ["0001", "X"]},
    FeatureError: {"names": ["feature_a"]},
    WorkerError: {"pid": 4711, "exitcode": -9},
    ResumeError: {"path": PATH, "found": 41, "expected": 40},
}
each_kind = pytest.mark.parametrize("kind", DATA, ids=lambda kind: kind.__name__)


def raised(error):
    """The same error, with a traceback."""
    with pytest.raises(type(error)) as caught:
        raise error
    return caught.value


@each_kind
def test_error_is_public_and_of_the_root(kind):
    assert getattr(numerai_sequence, kind.__name__) is kind
    assert kind.__name__ in numerai_sequence.__all__
    with pytest.raises(NumeraiSequenceError, match="it broke"):
        raise kind("it broke")


def test_every_public_error_is_tested_here():
    public = [getattr(numerai_sequence, name) for name in numerai_sequence.__all__ if "Err" in name]
    assert set(public) == set(DATA)


@pytest.mark.parametrize(
    ("kind", "base"),
    [
        (OutputExistsError, FileExistsError),
        (OutputError, OSError),
        (OutOfMemoryError, MemoryError),
        (EraError, ValueError),
        (FeatureError, ValueError),
    ],
)
def test_error_is_also_what_python_raises_for_it(kind, base):
    with pytest.raises(base, match="it broke"):
        raise kind("it broke")


@pytest.mark.parametrize("kind", [NumeraiSequenceError, SourceError, ManifestError])
def test_other_errors_are_nothing_else(kind):
    assert not issubclass(kind, (ValueError, TypeError, KeyError, OSError))


@each_kind
def test_message_is_what_is_shown(kind):
    message = "a/b: found 1, expected 2; write it again"
    error = kind(message, **DATA[kind])
    assert str(error) == error.message == message
    assert message in repr(error)


@each_kind
def test_fields_hold_what_was_given(kind):
    error = kind("it broke", **DATA[kind])
    assert {field: getattr(error, field) for field in DATA[kind]} == DATA[kind]
    assert set(kind.fields) == set(DATA[kind])


@each_kind
def test_fields_left_out_are_none(kind):
    error = kind("it broke")
    assert [getattr(error, field) for field in kind.fields] == [None] * len(DATA[kind])


@each_kind
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickling_keeps_the_class_the_message_and_the_fields(kind, protocol):
    error = raised(kind("it broke", **DATA[kind]))
    found = pickle.loads(pickle.dumps(error, protocol))
    assert type(found) is kind
    assert str(found) == found.message == "it broke"
    assert {field: getattr(found, field) for field in kind.fields} == DATA[kind]
    assert str(raised(found)) == "it broke"


@each_kind
def test_copy_is_the_same_error(kind):
    found = copy.copy(kind("it broke", **DATA[kind]))
    assert (type(found), found.message) == (kind, "it broke")
    assert {field: getattr(found, field) for field in kind.fields} == DATA[kind]


@each_kind
def test_message_is_the_one_positional_argument(kind):
    with pytest.raises(TypeError):
        kind()
    with pytest.raises(TypeError):
        kind("it broke", PATH)


@each_kind
def test_unknown_field_is_refused_by_name(kind):
    with pytest.raises(TypeError, match=f"{kind.__name__} has no field.*'pth'"):
        kind("it broke", pth=PATH)


KNOWN = ["feature_charisma", "feature_strength", "target"]


def test_known_names_pass_in_any_order():
    assert check_known("feature", KNOWN[::-1], KNOWN, "here") is None
    assert check_known("feature", [], KNOWN, "here") is None


def test_unknown_name_is_shown_with_its_close_matches():
    with pytest.raises(FeatureError) as caught:
        check_known("feature", ["feature_charm", "target"], KNOWN, "here")
    assert str(caught.value).startswith("here: unknown feature 'feature_charm'; did you mean ")
    assert "feature_charisma" in str(caught.value)
    assert caught.value.names == ["feature_charm"]


def test_many_unknown_names_are_counted_and_all_in_names():
    with pytest.raises(FeatureError, match=r"unknown feature 'qqq' and 2 more$") as caught:
        check_known("feature", ["zzz", "qqq", "target", "www"], KNOWN, "here")
    assert caught.value.names == ["qqq", "www", "zzz"]


def test_name_that_comes_twice_is_refused():
    with pytest.raises(FeatureError, match="here: target 'target' is named twice") as caught:
        check_known("target", ["target", "target"], KNOWN, "here")
    assert caught.value.names == ["target"]


def test_close_matches_are_at_most_three_and_none_where_nothing_is_like_it():
    known = [f"feature_{number}" for number in range(10)]
    assert close_matches("feature_x", known).count("feature_") == 3
    assert close_matches("zzz", known) == ""


def test_close_matches_with_a_line_break_stay_on_one_line():
    assert close_matches("feature_x", ["feature_\nx"]) == r"; did you mean 'feature_\nx'?"
