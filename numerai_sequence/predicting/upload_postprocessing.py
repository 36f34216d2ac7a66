"""Upload postprocessing: the ensemble, neutralization and ranks of an exported function."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from ..checks import file_path, is_of, names_in_order, one_of, share
from ..errors import FeatureError, SourceError, check_known
from ..feeding.sequence import NumeraiSequence
from ..format.feature_sets import FeatureSets, choose_set, find_feature_sets, resolve_features
from ..reading.shard_set import ShardSet
from .ensembles import BY, read_weights

_REMEDY = (
    "give features_json='features.json', the training sequence as like=, or a list of features, "
    "such as shards.feature_sets['medium']; or True for all that the models take"
)


@dataclass(frozen=True)
class Finish:
    """The steps from columns of predictions to the result. See `export_predict`.

    Attributes
    ----------
    ranked : bool
    ensemble : str, optional
    weights : optional
    neutral : tuple of str
        Features to neutralize to.
    proportion : float
    """

    ranked: bool
    ensemble: str | None
    weights: Any
    neutral: tuple[str, ...]
    proportion: float

    def weights_of(self, columns: Sequence[str], *, is_one_model: bool) -> list[float] | None:
        """Return a weight for each column; None if they are not blended.

        Raises
        ------
        ValueError
            The weights do not fit the columns; or the only model has several columns, and neither
            `ensemble` nor `weights` is given.
        """
        if self.ensemble is None and self.weights is None:
            if len(columns) == 1:
                return None
            if is_one_model:
                raise ValueError(
                    f"model: found {len(columns)} values for each row, {', '.join(columns[:5])}, "
                    "expected one; choose it with output=, or blend them with ensemble='rank'"
                )
        return read_weights(self.weights, list(columns))


def read_finish(
    *,
    ranked: bool,
    ensemble: str | None,
    weights: Any,
    neutralize: str | Sequence[str] | bool | None,
    proportion: float,
    features: tuple[str, ...],
    like: Any,
    features_json: Any,
) -> Finish:
    """Return the steps to the result. For the arguments see `export_predict`.

    Parameters
    ----------
    features : tuple of str
        Features that the models take.
    """
    if ensemble is not None:
        ensemble = one_of("ensemble", ensemble, BY)
    proportion = share("proportion", proportion)
    neutral = _neutral_features(neutralize, features, like, features_json)
    if not neutral and proportion != 1:
        raise ValueError(
            f"proportion: found {proportion:g} without neutralize=; add neutralize= with features, "
            "or leave proportion out"
        )
    return Finish(bool(ranked), ensemble, weights, neutral, proportion)


def _neutral_features(
    neutralize: Any, features: tuple[str, ...], like: Any, features_json: Any
) -> tuple[str, ...]:
    """Return the features to neutralize predictions to.

    Raises
    ------
    FeatureError
        A feature or feature set is unknown, or the list is empty.
    """
    if neutralize is None or isinstance(neutralize, bool):
        return features if neutralize else ()
    sets = _read_sets(features_json)
    shards = list(_shards_of(like))
    if isinstance(neutralize, str):
        return _of_set(neutralize, sets, features_json, shards)
    names = names_in_order("neutralize", neutralize)
    if not names:
        raise FeatureError(
            "neutralize: found no features, expected at least one; name some, or leave it out",
            names=(),
        )
    known = [*(one.features for one in shards), *(sets.values() if sets is not None else ())]
    every = {*chain.from_iterable(known), *features} if known else names
    check_known("feature", names, tuple(every), "neutralize")
    return names


def _read_sets(features_json: Any) -> FeatureSets | None:
    if features_json is None:
        return None
    expected = "the path of Numerai's features.json"
    return find_feature_sets(file_path("features_json", features_json, expected, SourceError))


def _shards_of(like: Any) -> Iterator[ShardSet]:
    """Yield the shard sets of the models' training sequences."""
    for one in like.values() if isinstance(like, Mapping) else [like]:
        if is_of(one, NumeraiSequence):
            yield one.shards


def _of_set(
    name: str, sets: FeatureSets | None, features_json: Any, shards: Sequence[ShardSet]
) -> tuple[str, ...]:
    if sets is not None:
        every = {*chain.from_iterable(sets.values())}
        return choose_set(name, sets, tuple(every), f"neutralize: {features_json}")
    found = {resolve_features(name, one.manifest, f"neutralize: {one.folder}") for one in shards}
    if len(found) == 1:
        return found.pop()
    what = "differs between the sets of like=" if found else "is not known"
    raise FeatureError(f"neutralize: the feature set {name!r} {what}; {_REMEDY}", names=[name])
