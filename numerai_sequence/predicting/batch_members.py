"""Batch members: models that predict the same rows, and the part of a batch that each takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..batching.inputs import Inputs
from ..checks import is_of
from ..errors import naming
from ..feeding.model_input import ModelInput
from ..feeding.sequence import NumeraiSequence
from ..format.encoding import SCALE
from ..format.feature_sets import resolve_features
from ..format.layout import FEATURES, Manifest
from ..reading.shard_set import ShardSet
from ..scoring.forward_pass import Fed
from ..scoring.model_outputs import name_columns, run_batch
from ..writing.chosen_columns import choose_columns
from ..writing.source_columns import Source
from .model_features import known_input, settle_input
from .named_models import Named

_REMEDY = "name the features that it was trained on: features=sequence.features"


@dataclass(frozen=True)
class Member:
    """One of the models that predict.

    Attributes
    ----------
    name : str or None
        Name of the model; None if it is the only one.
    model : Keras model
    known : ModelInput
        The input that it was trained on. Once settled, the input that it gets.
    asked : ModelInput
        The input that the user chose.
    features : str or sequence of str, optional
        The features that the user chose: a feature set, or a list; None for all.
    is_told : bool
        Whether the features that it was trained on are known.
    output : str, optional
        Name of the output to use.
    maker : NumeraiSequence, optional
        A sequence of the user's own class, which makes the batches.
    is_settled : bool
        Whether `known` is the input that the model gets.
    """

    name: str | None
    model: Any
    known: ModelInput
    asked: ModelInput
    features: str | Sequence[str] | None
    is_told: bool
    output: str | None
    maker: NumeraiSequence | None
    is_settled: bool = False

    def over(self, manifest: Manifest, where: str) -> Member:
        """Return the member with the names of its features in a shard set."""
        with naming(self.name):
            return self._with(resolve_features(self.features, manifest, where))

    def over_file(self, source: Source) -> Member:
        """Return the member with the names of its features in a Parquet file."""
        with naming(self.name):
            return self._with(choose_columns([source], self.features, ())[0])

    def _with(self, features: Sequence[str]) -> Member:
        return replace(self, asked=replace(self.asked, features=tuple(features)))

    def settled(
        self, where: str, batch_size: int | None, shards: ShardSet | None, **chosen: Any
    ) -> Member:
        """Return the member with its complete input; see `settle_input`."""
        maker = None
        with naming(self.name):
            if self.maker is not None and shards is not None:
                maker = self.maker.over(shards, batch_by="rows", batch_size=1, **chosen)
            known = settle_input(
                self.model,
                self.known,
                self.asked,
                where if self.name is None else f"{where}, model {self.name!r}",
                remedy=_REMEDY,
                batch_size=batch_size,
                is_told=self.is_told,
                maker=maker,
            )
        return replace(self, known=known, is_settled=True)

    def try_on(self, rows: int) -> None:
        """Run the model on `rows` rows of zeros."""
        features = np.zeros((rows, len(self.wanted)), self.known.dtype)
        others = {n: np.zeros((rows, len(one)), np.float32) for n, one in self.inputs.items()}
        x = {FEATURES: features, **others} if others else features
        with naming(self.name):
            name_columns(self.model, run_batch(self.model, x), self.output, rows=rows)

    @property
    def wanted(self) -> tuple[str, ...]:
        """The features that the model takes."""
        return self.asked.features or ()

    @property
    def inputs(self) -> Inputs:
        """The columns of the model's other inputs."""
        return self.known.inputs or {}

    def fed_from(self, sequence: NumeraiSequence) -> Fed:
        """Return how to feed the model from batches of a sequence that has all its features."""
        if self.maker is not None:
            return Fed(self.model, self.output, None, self.name)
        takes = _Takes.of(sequence, self.wanted, str(self.known.dtype), self.inputs)
        return Fed(self.model, self.output, takes, self.name)

    def name_columns(self, columns: Sequence[str]) -> list[str]:
        """Return the names of the model's columns beside those of other models."""
        if self.name is None:
            return list(columns)
        return [self.name] if len(columns) == 1 else [f"{self.name}/{one}" for one in columns]


_Places = slice | npt.NDArray[np.intp]


@dataclass(frozen=True)
class _Takes:
    """A function from a batch, maybe of more features or another dtype, to a model's input."""

    places: _Places
    dtype: str
    inputs: dict[str, _Places]

    @classmethod
    def of(
        cls, sequence: NumeraiSequence, wanted: tuple[str, ...], dtype: str, inputs: Inputs
    ) -> _Takes | None:
        """Return the function; None if the model takes the whole batch as it is."""
        is_same = wanted == sequence.features and dtype == sequence.dtype
        if is_same and inputs == sequence.inputs:
            return None
        others = {name: _places(sequence.inputs[name], inputs[name]) for name in inputs}
        return cls(_places(sequence.features, wanted), dtype, others)

    def __call__(self, x: Any) -> Any:
        features = self._features(x[FEATURES] if isinstance(x, dict) else x)
        if not self.inputs:
            return features
        others = {
            name: np.ascontiguousarray(x[name][:, places]) for name, places in self.inputs.items()
        }
        return {FEATURES: features, **others}

    def _features(self, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        part = x[:, self.places]
        if part.dtype == np.int8 and self.dtype != "int8":
            part = np.multiply(part, SCALE, dtype=np.float32)
        return np.ascontiguousarray(part, self.dtype)


def _places(known: Sequence[str], wanted: Sequence[str]) -> _Places:
    """Return the places of names among others, as a slice if they are neighbours."""
    place_of = {name: place for place, name in enumerate(known)}
    places = np.array([place_of[name] for name in wanted], np.intp)
    first, last = int(places[0]), int(places[0]) + len(places)
    return slice(first, last) if np.array_equal(places, np.arange(first, last)) else places


def make_members(
    models: Sequence[Named],
    features: str | Sequence[str] | None,
    output: str | None,
    asked: ModelInput,
) -> list[Member]:
    """Return models with the inputs that they were trained on and that the user chose.

    Parameters
    ----------
    models : sequence of Named
    features, output
        See `predict`.
    asked : ModelInput
        Without features.
    """
    return [_make_member(named, features, output, asked) for named in models]


def _make_member(
    named: Named, features: str | Sequence[str] | None, output: str | None, asked: ModelInput
) -> Member:
    like = named.like
    with naming(named.name):
        known = known_input(named.model, like)
    if named.name is not None:  # of several models, those that remember their input use it
        features = features if known.features is None else None
        asked = asked if known.dtype is None else replace(asked, dtype=None)
    return Member(
        named.name,
        named.model,
        known,
        asked,
        known.features if features is None else features,
        features is not None or known.features is not None,
        output if output is not None else getattr(like, "output", None),
        like if is_of(like, NumeraiSequence) and like.made_by is not None else None,
    )


def union_of(members: Sequence[Member]) -> tuple[str, ...]:
    """Return the features of all models, each once. The model with the most features is first."""
    longest = sorted(members, key=lambda member: -len(member.wanted))
    return tuple(dict.fromkeys(name for member in longest for name in member.wanted))


def inputs_of(members: Sequence[Member]) -> dict[str, tuple[str, ...]]:
    """Return the columns of the other inputs of all models, each column of an input once."""
    columns: dict[str, tuple[str, ...]] = {}
    for member in members:
        for name, wanted in member.inputs.items():
            columns[name] = tuple(dict.fromkeys([*columns.get(name, ()), *wanted]))
    return columns


def dtype_of(members: Sequence[Member]) -> str:
    """Return the dtype of batches that serve all models."""
    found = {str(member.known.dtype) for member in members}
    return found.pop() if len(found) == 1 else "int8"


def groups_of(members: Sequence[Member]) -> list[list[int]]:
    """Return the groups of models that share a sequence. A model with a maker is alone."""
    groups = [[n] for n, member in enumerate(members) if member.maker is not None]
    plain = [n for n, member in enumerate(members) if member.maker is None]
    return [plain, *groups] if plain else groups


def check_names(names: Sequence[str], *, with_era: bool) -> None:
    """Raise a `ValueError` if two columns of the frame would have the same name."""
    taken = ["era", *names] if with_era else list(names)
    twice = next((name for name in taken if taken.count(name) > 1), None)
    if twice is not None:
        raise ValueError(
            f"model: found two columns named {twice!r}; give the models other names, as a mapping"
        )
