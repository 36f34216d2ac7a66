"""Identity: it is the same for the same batches, and names what makes them others."""

from __future__ import annotations

import json
from types import MappingProxyType

import numpy as np
import pytest

from numerai_sequence import NumeraiSequence
from numerai_sequence.batching.epoch import Position
from numerai_sequence.resuming.run_identity import identity, order_digest, with_defaults


def test_the_same_sequence_has_the_same_identity_wherever_its_memory_is(shards):
    first = NumeraiSequence(shards, 40, target=["target", "target_b"])
    again = NumeraiSequence(
        str(shards.folder), 40, target=("target", "target_b"), memory_budget="200MB", workers=3
    )
    again.begin_epoch(2)
    assert identity(first) == identity(again)
    for place in (Position(0), Position(3, 7)):
        assert order_digest(first, place) == order_digest(again, place)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"target": "target_b"}, "target"),
        ({"target": ["target"]}, "target"),
        ({"sample_weight": "target_b"}, "sample_weight"),
        ({"missing_target": "mask"}, "missing_target"),
        ({"drop_remainder": True}, "drop_remainder"),
        ({"batch_by": "era"}, "batch_by"),
        ({"world_size": 2}, "world_size"),
        ({"data_type": "train", "eras": "::2"}, "rows"),
    ],
)
def test_what_makes_other_batches_is_in_it(shards, change, name):
    one = identity(NumeraiSequence(shards, 4))
    other = identity(NumeraiSequence(shards, 4, **change))
    assert [key for key in one if one[key] != other[key]] == [name]


def test_a_weight_by_function_is_known_by_its_name_and_code(shards):
    def weights(function):
        return identity(NumeraiSequence(shards, 4, sample_weight=function))["sample_weight"]

    name = f"{__name__}.test_a_weight_by_function_is_known_by_its_name_and_code.<locals>.<lambda>"
    found = weights(lambda eras, y: y)
    assert found["function"] == name
    assert found == weights(lambda eras, y: y)
    assert found != weights(lambda eras, y: y + 1)


def test_it_is_plain_json(shards):
    sequence = NumeraiSequence(
        shards,
        np.int64(4),
        target=MappingProxyType({np.str_("a"): ["target"]}),
        shuffle=np.True_,
        drop_remainder=np.True_,
    )
    sequence.sample_weight = dict.fromkeys(sequence.eras, np.float32(0.1))
    found = identity(sequence)
    assert json.loads(json.dumps(found)) == found
    assert found["target"] == {"a": ["target"]}
    assert found["drop_remainder"] is True
    assert set(found["sample_weight"]["eras"].values()) == {0.1}


def test_an_identity_from_before_an_argument_has_its_default(shards):
    now = identity(NumeraiSequence(shards, 4, run_rows=1))
    for name in ("drop_remainder", "missing_target", "world_size", "dtype", "shuffle", "seed"):
        before = {key: value for key, value in now.items() if key != name}
        assert with_defaults(before) == now
    other = identity(NumeraiSequence(shards, 4, run_rows=1, seed=3))
    assert with_defaults(other) == other


def test_another_batch_has_another_digest(shards):
    sequence = NumeraiSequence(shards, 4)
    places = [Position(0), Position(0, 1), Position(1)]
    assert len({order_digest(sequence, place) for place in places}) == 3
