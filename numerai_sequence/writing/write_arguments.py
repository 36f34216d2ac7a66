"""Write arguments: the checked arguments of `write_shards` and `sync_shards`."""

from __future__ import annotations

from typing import Any

from ..checks import file_path, file_paths, names_in_order, true_or_false
from ..errors import OutputError, SourceError
from ..format.layout import WriteOptions

FOLDER = "the path of a shard set's folder"
PARQUET = (
    "the path of a Parquet file, or a list of such paths; save a table as Parquet first, and give "
    "its path"
)


def writer_arguments(
    sources: Any,
    out: Any,
    *,
    num_shards: Any,
    encoding: Any,
    mix_eras: Any,
    features: Any,
    targets: Any,
    features_json: Any,
    seed: Any,
    missing_feature: Any,
    overwrite: Any,
) -> dict[str, Any]:
    """Return the arguments of `write`, by name, except `progress` and `executor`.

    Raises
    ------
    TypeError, ValueError
        `write_shards` does not take an argument of this type or value.
    """
    feature_set = str(features) if isinstance(features, str) else None
    by_name = feature_set is not None or features is None
    options = WriteOptions(
        num_shards,
        encoding,
        mix_eras,
        None if by_name else names_in_order("features", features),
        None if targets is None else names_in_order("targets", targets),
        seed,
        missing_feature,
    )
    folder = file_path("out", out, FOLDER, OutputError)
    json = "the path of Numerai's features.json"
    return {
        "sources": file_paths("sources", sources, PARQUET, SourceError),
        "out": folder,
        "options": options,
        "feature_set": feature_set,
        "features_json": None
        if features_json is None
        else file_path("features_json", features_json, json, SourceError),
        "overwrite": true_or_false("overwrite", overwrite),
    }
