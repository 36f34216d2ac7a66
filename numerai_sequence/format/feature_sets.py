"""Feature sets: the feature names of each feature set in Numerai's features.json.

The file is a JSON object. Its key ``feature_sets`` maps the name of each set to the names of its
features. Its other keys (``targets``, in older files statistics) are not used.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from ..checks import as_dict, as_names, names_in_order
from ..errors import FeatureError, SourceError, check_known, close_matches
from .layout import Manifest

FEATURES_JSON = "features.json"

FeatureSets = dict[str, tuple[str, ...]]

_EXPECTED = '{"feature_sets": {"small": ["feature_...", ...], ...}}'


def resolve_features(
    features: str | Sequence[str] | None, manifest: Manifest, where: str
) -> tuple[str, ...]:
    """Return the names of the features that a user chose from a shard set.

    Parameters
    ----------
    features : str or sequence of str, optional
        Name of a feature set, or a list of features; None for all features of the shard set.
    manifest : Manifest
        Manifest of the shard set.
    where : str
        Name of the shard set, for errors.

    Returns
    -------
    tuple of str
        The features: a feature set in the order of features.json, a list in its own order, all
        features in the order of the shard set.

    Raises
    ------
    FeatureError
        A feature or a feature set is unknown, the shard set lacks some features of the feature set,
        or a feature is named twice.
    TypeError
        `features` is not a list of names, or has no order, such as a Python set.
    """
    if features is None:
        return manifest.features
    if not isinstance(features, str):
        chosen = names_in_order("features", features)
        if not chosen:
            raise FeatureError(f"{where}: features: found none, expected at least one", names=())
        check_known("feature", chosen, manifest.features, where)
        return chosen
    if features in manifest.partial_sets:
        what = "in this shard set; write the set with all of them"
        raise _incomplete(features, *manifest.partial_sets[features], where, what)
    if features not in manifest.feature_sets:
        names = [*manifest.feature_sets, *manifest.partial_sets]
        raise _unknown(features, names, manifest.features, where)
    return tuple(manifest.features[place] for place in manifest.feature_sets[features])


def choose_set(
    name: str, sets: FeatureSets | None, features: Sequence[str], where: str
) -> tuple[str, ...]:
    """Return the features of a feature set that is to be written from a file with `features`.

    Raises
    ------
    FeatureError
        The feature set is unknown, or the file lacks some of its features.
    """
    if sets is None or name not in sets:
        raise _unknown(name, sets or (), features, where)
    present = len(set(sets[name]).intersection(features))
    if present < len(sets[name]):
        what = "in this file; choose another set, or list the features to write"
        raise _incomplete(name, present, len(sets[name]), where, what)
    return sets[name]


def with_feature_sets(manifest: Manifest, sets: FeatureSets | None) -> Manifest:
    """Return a manifest with these feature sets in place of its own, or unchanged for None."""
    if sets is None:
        return manifest
    place_of = {name: place for place, name in enumerate(manifest.features)}
    whole, partial = {}, {}
    for name, features in sets.items():
        places = tuple(place_of[feature] for feature in features if feature in place_of)
        if len(places) == len(features):
            whole[name] = places
        else:
            partial[name] = (len(places), len(features))
    return replace(manifest, feature_sets=whole, partial_sets=partial)


def find_feature_sets(given: Path | None, *folders: Path) -> FeatureSets | None:
    """Read the given file, or the features.json of the first folder that has one.

    Return None if there is no file.

    Raises
    ------
    SourceError
        The file cannot be read, or is not a features.json.
    """
    if given is not None:
        return _read(given, "download Numerai's features.json again, or leave out features_json=")
    for folder in folders:
        beside = folder / FEATURES_JSON
        if beside.exists():
            return _read(beside, "repair or remove it, or name another with features_json=")
    return None


def _read(path: Path, remedy: str) -> FeatureSets:
    def error(found: object) -> SourceError:
        return SourceError(f"{path}: {found}; expected {_EXPECTED}; {remedy}", path=path)

    try:
        sets = as_dict(as_dict(json.loads(path.read_bytes())).get("feature_sets"))
    except OSError as cause:
        raise error(cause.strerror or cause) from cause
    except (TypeError, ValueError, RecursionError) as cause:
        raise error(cause) from cause
    for name, features in sets.items():
        try:
            sets[name] = as_names(features)
        except (TypeError, ValueError) as cause:
            raise error(f"feature set {name!r}: {cause}") from cause
    return sets


def _incomplete(name: str, present: int, features: int, where: str, what: str) -> FeatureError:
    return FeatureError(
        f"{where}: feature set {name!r}: {present} of its {features} features are {what}",
        names=[name],
    )


def _unknown(
    name: str, sets: Collection[str], features: Collection[str], where: str
) -> FeatureError:
    if name in features:
        what = f"{name!r} is a feature, not a feature set; expected a list: [{name!r}]"
    elif not sets:
        what = (
            f"found no feature sets, expected one named {name!r}; download Numerai's "
            f"{FEATURES_JSON} beside the Parquet file, or name it with features_json=, and write "
            "the set again"
        )
    else:
        close = close_matches(name, list(sets)) or f"; there are {', '.join(sets)}"
        what = f"unknown feature set {name!r}{close}"
    return FeatureError(f"{where}: {what}", names=[name])
