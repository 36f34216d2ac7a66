"""State: it comes back as it was written, whole or not at all, or is refused by its path."""

from __future__ import annotations

import json

import pytest

from numerai_sequence import OutputError, ResumeError
from numerai_sequence.batching.epoch import Position
from numerai_sequence.resuming.training_state import (
    FILE,
    State,
    check_same,
    read_state,
    write_state,
)

IDENTITY = {"set": "ab", "batch_size": 40, "shuffle": True, "sample_weight": None}
STATE = State(IDENTITY, "cd", Position(2, 30), 1, [[1, 2], [3, 4]])


def save(path):
    with open(path, "w") as file:
        file.write("weights")


def test_a_state_comes_back_with_its_weights(tmp_path):
    write_state(tmp_path / "new" / "state", STATE, save)
    assert read_state(tmp_path / "new" / "state") == STATE
    names = sorted(path.name for path in (tmp_path / "new" / "state").iterdir())
    assert names == ["epoch-2-batch-30.weights.h5", FILE]
    assert (tmp_path / "new" / "state" / STATE.weights).read_text() == "weights"


def test_there_may_be_none(tmp_path):
    assert read_state(tmp_path) is None
    assert read_state(tmp_path / "missing") is None


def test_only_the_newest_weights_stay_and_nothing_of_a_kill(tmp_path):
    write_state(tmp_path, STATE, save)
    (tmp_path / "epoch-3-batch-0.7.tmp.weights.h5").write_text("half")
    later = State(IDENTITY, "ef", Position(3), 1, [])
    write_state(tmp_path, later, save)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch-3-batch-0.weights.h5", FILE]
    assert read_state(tmp_path) == later


def test_an_old_state_outlives_weights_that_cannot_be_saved(tmp_path):
    write_state(tmp_path, STATE, save)

    def fail(path):
        save(path)
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="epoch-3-batch-0"):
        write_state(tmp_path, State(IDENTITY, "ef", Position(3), 1, []), fail)
    assert read_state(tmp_path) == STATE
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "found format and version"),
        ({"version": 1}, "an older version wrote it; or, to start again"),
        ({"version": 3}, r"\('numerai_sequence.state', 3\), expected .*; upgrade numerai_sequence"),
        ({"version": "2"}, r"\('numerai_sequence.state', '2'\), expected"),
        ({"learning_rate": "fast"}, "learning_rate: found 'fast'"),
        ({"learning_rate": True}, "damaged"),
        ({"sample_weight": [1, 2]}, "sample_weight: found 1"),
        ({"sample_weight": [None]}, "damaged"),
        ({"place": [1]}, "damaged"),
        ({"place": [1, -1]}, "damaged"),
        ({"place": [1.5, 0]}, "damaged"),
        ({"seeds": [["a"]]}, "damaged"),
        ({"identity": []}, "damaged"),
        ({"before": None}, "damaged"),
    ],
)
def test_a_damaged_state_is_refused(tmp_path, change, message):
    write_state(tmp_path, STATE, save)
    document = json.loads((tmp_path / FILE).read_text())
    (tmp_path / FILE).write_text(json.dumps(document | change))
    with pytest.raises(ResumeError, match=message) as info:
        read_state(tmp_path)
    assert info.value.path == tmp_path / FILE
    assert "to start again" in str(info.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000], ids=str)
def test_what_is_no_state_is_refused(tmp_path, text):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(ResumeError, match=r"state\.json: damaged"):
        read_state(tmp_path)


def test_weights_that_are_gone_are_named(tmp_path):
    write_state(tmp_path, STATE, save)
    (tmp_path / STATE.weights).unlink()
    with pytest.raises(ResumeError, match=r"epoch-2-batch-30\.weights\.h5: no such file"):
        read_state(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"), [("set", "xy"), ("batch_size", 50), ("shuffle", False), ("new", 1)]
)
def test_what_differs_is_named(tmp_path, name, value):
    check_same(tmp_path, STATE, dict(IDENTITY), "cd")
    with pytest.raises(ResumeError, match=f"{name}: found {value!r}, but it was") as info:
        check_same(tmp_path, STATE, IDENTITY | {name: value}, "cd")
    assert info.value.found == value
    assert info.value.expected == IDENTITY.get(name)


def test_another_order_of_the_same_numbers_is_refused(tmp_path):
    with pytest.raises(ResumeError, match="order: found 'other'"):
        check_same(tmp_path, STATE, IDENTITY, "other")
