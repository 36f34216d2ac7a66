"""Feature sets: features.json is read strictly, and a set's name stands for its features."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numerai_tables import numerai_table, write_features_json, write_source

from numerai_sequence import FeatureError, SourceError, open_shards, write_shards
from numerai_sequence.format.feature_sets import resolve_features
from numerai_sequence.format.layout import MANIFEST
from numerai_sequence.format.manifest import read_manifest

NAMES = tuple(f"feature_{number:03d}" for number in range(14))
SMALL = ("feature_004", "feature_001", "feature_013")
SETS = {
    "small": SMALL,
    "all": NAMES,
    "rain": ("feature_002", "feature_old", "feature_000"),
    "faith": ("feature_older",),
}
REAL_SETS = Path(__file__).resolve().parents[3] / "shared" / "data" / "v5.3_features.json"
WRONG = [
    (b"", "Expecting value"),
    (b'{"feature_sets": {"small": ["feature_0', "Unterminated"),
    (b"\xff\xfe{", "decode"),
    (b"[" * 100_000, "recursion"),
    (b"[1, 2]", "found [1, 2]"),
    (b"null", "found None"),
    (b"{}", "found None"),
    (b'{"targets": []}', "found None"),
    (b'{"feature_sets": ["small"]}', "found ['small']"),
    (b'{"feature_sets": {"a": [], "small": "feature_001"}}', "'small': found 'feature_001'"),
    (b'{"feature_sets": {"small": {"feature_001": 1}}}', "'small': found {'feature_001': 1}"),
    (b'{"feature_sets": {"small": ["a", 3]}}', "'small': found 3, expected a string"),
    (b'{"feature_sets": {"small": ["a", "b", "a"]}}', "'small': name 'a' comes twice"),
]


@pytest.fixture
def train(tmp_path):
    return write_source(tmp_path / "train.parquet", rows=60)


def write(source, out, **options):
    """Write a set of two shards; return its folder."""
    write_shards(source, out, num_shards=2, progress=False, **options).close()
    return out


def refusal(kind, *arguments, **options):
    with pytest.raises(kind) as caught:
        write(*arguments, **options)
    return caught.value


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    write_features_json(folder / "features.json", **SETS)
    return read_manifest(write(write_source(folder / "train.parquet"), folder / "shards"))


def resolve(features, manifest):
    return resolve_features(features, manifest, "data/shards")


def unresolved(features, manifest):
    with pytest.raises(FeatureError) as caught:
        resolve(features, manifest)
    assert str(caught.value).startswith("data/shards: ")
    return caught.value


def test_sets_are_kept_as_places_where_all_of_their_features_are_there(manifest):
    assert manifest.feature_sets == {"small": (4, 1, 13), "all": tuple(range(14))}
    assert manifest.partial_sets == {"rain": (2, 3), "faith": (0, 1)}


def test_places_are_those_of_the_features_that_are_written(train, tmp_path):
    write_features_json(tmp_path / "features.json", **SETS)
    manifest = read_manifest(write(train, tmp_path / "s", features=[*NAMES[:1], *SMALL[::-1]]))
    assert manifest.feature_sets == {"small": (3, 2, 1)}
    assert manifest.partial_sets == {"all": (4, 14), "rain": (1, 3), "faith": (0, 1)}


def test_a_shard_set_and_each_part_of_it_say_its_feature_sets(train, tmp_path):
    write_features_json(tmp_path / "features.json", **SETS)
    with open_shards(write(train, tmp_path / "s")) as shards:
        assert shards.feature_sets == {"small": SMALL, "all": NAMES}
        assert shards[1].feature_sets == shards.feature_sets


def test_nothing_asked_for_is_all_features(manifest):
    assert resolve(None, manifest) == NAMES


def test_a_name_is_the_set_in_the_order_of_features_json(manifest):
    assert resolve("small", manifest) == SMALL
    assert resolve("all", manifest) == NAMES


@pytest.mark.parametrize("kind", [list, tuple, iter])
def test_a_list_is_what_it_says_in_its_order(manifest, kind):
    assert resolve(kind(["feature_009", "feature_003"]), manifest) == ("feature_009", "feature_003")


def test_a_list_is_checked(manifest):
    error = unresolved(["feature_009", "feature_0O3"], manifest)
    assert error.names == ["feature_0O3"]
    assert "feature_003" in str(error).split("; did you mean ")[1]
    assert unresolved(["feature_009", "feature_009"], manifest).names == ["feature_009"]


@pytest.mark.parametrize(("name", "present"), [("rain", "2 of its 3"), ("faith", "0 of its 1")])
def test_a_set_that_is_there_in_part_is_refused_with_how_much_is(manifest, name, present):
    error = unresolved(name, manifest)
    assert error.names == [name]
    assert f"feature set '{name}': {present} features are in this shard set; write" in str(error)


def test_an_unknown_set_comes_with_those_like_it_or_with_all(manifest):
    assert str(unresolved("smal", manifest)).endswith("set 'smal'; did you mean small?")
    assert "did you mean rain?" in str(unresolved("rian", manifest))
    error = unresolved("xyz", manifest)
    assert str(error).endswith("unknown feature set 'xyz'; there are small, all, rain, faith")
    assert error.names == ["xyz"]


def test_one_feature_is_asked_for_in_a_list(manifest):
    error = unresolved("feature_003", manifest)
    assert "'feature_003' is a feature, not a feature set" in str(error)
    assert "expected a list: ['feature_003']" in str(error)


def test_without_feature_sets_it_is_said_how_to_get_them(train, tmp_path):
    manifest = read_manifest(write(train, tmp_path / "shards"))
    assert (manifest.feature_sets, manifest.partial_sets) == ({}, {})
    for error in (
        unresolved("small", manifest),
        refusal(FeatureError, train, tmp_path / "out", features="small"),
    ):
        assert error.names == ["small"]
        for part in ("no feature sets", "features_json=", "beside the Parquet file"):
            assert part in str(error)


def test_a_set_is_written_by_its_name_in_its_order(train, tmp_path):
    write_features_json(tmp_path / "features.json", **SETS)
    by_name = write(train, tmp_path / "by_name", features="small")
    by_list = write(train, tmp_path / "by_list", features=SMALL)
    manifest = read_manifest(by_name)
    assert manifest.features == manifest.options.features == SMALL
    assert manifest == read_manifest(by_list)
    assert manifest.feature_sets == {"small": (0, 1, 2)}
    for path in by_name.glob("*.arrow"):
        assert path.read_bytes() == (by_list / path.name).read_bytes()


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("smal", "unknown feature set 'smal'; did you mean small?"),
        ("feature_002", "'feature_002' is a feature, not a feature set"),
        ("rain", "feature set 'rain': 2 of its 3 features are in this file"),
        ("", "unknown feature set ''; there are small"),
    ],
)
def test_a_set_that_cannot_be_written_is_named_with_the_file(train, tmp_path, name, what):
    write_features_json(tmp_path / "features.json", **SETS)
    error = refusal(FeatureError, train, tmp_path / "out", features=name)
    assert str(error).startswith(f"{train}: {what}")
    assert error.names == [name]
    assert not (tmp_path / "out").exists()


def test_the_file_beside_the_first_source_is_read(tmp_path):
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        path = tmp_path / str(number) / "train.parquet"
        write_source(path, rows=60, first_row=60 * number)
        write_features_json(path.parent / "features.json", **{f"set_{number}": SMALL})
    sources = [tmp_path / "1" / "train.parquet", str(tmp_path / "0" / "train.parquet")]
    manifest = read_manifest(write(sources, tmp_path / "shards"))
    assert list(manifest.feature_sets) == ["set_1"]


@pytest.mark.parametrize("kind", [str, Path])
def test_the_file_that_is_named_goes_before_the_one_beside(train, tmp_path, kind):
    (tmp_path / "features.json").write_text("broken")
    named = write_features_json(tmp_path / "v5.json", named=SMALL)
    manifest = read_manifest(write(train, tmp_path / "shards", features_json=kind(named)))
    assert list(manifest.feature_sets) == ["named"]


@pytest.mark.parametrize(("content", "found"), WRONG, ids=range(len(WRONG)))
@pytest.mark.parametrize("is_named", [True, False])
def test_a_file_of_another_shape_is_refused(train, tmp_path, content, found, is_named):
    path = tmp_path / ("other.json" if is_named else "features.json")
    path.write_bytes(content)
    options = {"features_json": path} if is_named else {}
    error = refusal(SourceError, train, tmp_path / "out", **options)
    assert (error.path, error.column, error.row) == (path, None, None)
    assert str(error).startswith(f"{path}: ")
    assert found in str(error)
    assert '; expected {"feature_sets": {"small": ["feature_' in str(error)
    assert ("download" if is_named else "repair or remove it") in str(error)
    assert "features_json=" in str(error)
    assert not (tmp_path / "out").exists()


def test_an_error_shows_little_of_a_large_file(train, tmp_path):
    document = {"feature_sets": list(NAMES) * 1000}
    (tmp_path / "features.json").write_text(json.dumps(document))
    assert len(str(refusal(SourceError, train, tmp_path / "out"))) < 500


def test_a_file_that_is_not_there_or_no_file_is_refused(train, tmp_path):
    path = tmp_path / "v5.json"
    error = refusal(SourceError, train, tmp_path / "out", features_json=path)
    assert error.path == path
    assert f"{path}: No such file or directory; expected" in str(error)
    (tmp_path / "features.json").mkdir()
    error = refusal(SourceError, train, tmp_path / "out")
    assert error.path == tmp_path / "features.json"
    assert "Is a directory" in str(error)


def test_older_files_without_targets_and_with_more_are_read(train, tmp_path):
    document = {"feature_stats": {"feature_001": {"x": 1}}, "feature_sets": {"small": SMALL}}
    (tmp_path / "features.json").write_text(json.dumps(document))
    assert read_manifest(write(train, tmp_path / "s")).feature_sets == {"small": (4, 1, 13)}


@pytest.mark.skipif(not REAL_SETS.exists(), reason="no real data here")
def test_real_feature_sets_are_known_and_few_bytes(tmp_path):
    real = json.loads(REAL_SETS.read_text())["feature_sets"]
    table = numerai_table(rows=20)
    columns = {name: table[name] for name in ("id", "era")}
    columns |= dict.fromkeys(reversed(real["all"]), table["feature_000"])
    pq.write_table(pa.table(columns), tmp_path / "train.parquet")
    shutil.copyfile(REAL_SETS, tmp_path / "features.json")
    with open_shards(write(tmp_path / "train.parquet", tmp_path / "all")) as shards:
        assert shards.feature_sets == {name: tuple(names) for name, names in real.items()}
        assert resolve("medium", shards.manifest) == tuple(real["medium"])
    with open_shards(write(tmp_path / "train.parquet", tmp_path / "s", features="small")) as small:
        assert small.features == tuple(real["small"])
        assert "small" in small.feature_sets
        both = set(real["small"]) & set(real["medium"])
        assert small.manifest.partial_sets["medium"] == (len(both), len(real["medium"]))
    assert (tmp_path / "all" / MANIFEST).stat().st_size < 1.5 * len(json.dumps(real["all"]))
