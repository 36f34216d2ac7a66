"""Manifests: the manifest says something else, is no manifest at all, or is far too much of one."""

import json
from typing import Any

from campaigns.mutations.changed_copy import Draft, manifest_text, nested, sign

NUMBERS = (0, 1, -1, 2**31, 2**63 - 1, 2**63, 2**64, 10**400, 1.5, 1e308, float("nan"))
NAMES = (
    *("", "../shard-00.arrow", "/etc/passwd", "..", "a/b.arrow", "C:\\x.arrow", "shard\0.arrow"),
    *("\n", "\x1b[31m", "\ud800", "\udcff.arrow", "9" * 5000, "era" + "9" * 5000, "٣", "²"),
    *("manifest.json", "id", "era", "features", "target_0", "train", "0001", "é", "e\u0301"),
)
DEPTHS = (900, 950, 970, *range(975, 1000), 1000, 2000, 100_000)

Path = tuple[Any, ...]


def places(document: Any, at: Path = ()) -> list[Path]:
    """Return every place in a document, as its keys from the root."""
    found = [at] if at else []
    if isinstance(document, (dict, list)):
        keys = document if isinstance(document, dict) else range(len(document))
        for key in keys:
            found += places(document[key], (*at, key))
    return found


def parent(document: Any, place: Path) -> Any:
    for key in place[:-1]:
        document = document[key]
    return document


def pick_place(draft: Draft, *, within: Path = ()) -> tuple[Any, Any]:
    """Return what holds a value, and its key there; the long lists do not outweigh the rest."""
    found = [place for place in places(draft.document) if place[: len(within)] == within]
    heads = {}
    for place in found:
        kind = tuple(key if isinstance(key, str) else 0 for key in place)
        heads.setdefault(kind[:4], []).append(place)
    place = draft.pick(draft.pick(heads.values()))
    return parent(draft.document, place), place[-1]


def value(draft: Draft) -> Any:
    """Return something that a manifest may not have at most of its places."""
    kinds = (
        lambda: draft.pick(NUMBERS),
        lambda: draft.pick(NAMES),
        lambda: draft.pick((None, True, False, [], {}, [[]], [1], {"a": 1}, [None], ["a", "a"])),
        lambda: draft.pick(("x", "é", "🐍", "\n")) * draft.pick((300, 100_000, 900_000)),
        lambda: nested(draft.pick(DEPTHS[:-2]), draft.pick("[{")),
        lambda: list(range(draft.pick((10, 100_000)))),
    )
    return draft.pick(kinds)()


def set_value(draft: Draft) -> None:
    """Put a value of another type, a huge or a strange one anywhere."""
    holder, key = pick_place(draft)
    holder[key] = value(draft)
    finish(draft)


def set_number(draft: Draft) -> None:
    """Change a number of a shard or a batch, a little or a lot."""
    holder, key = pick_place(draft, within=("shards",))
    for _ in range(100):
        if isinstance(holder[key], int):
            break
        holder, key = pick_place(draft, within=("shards",))
    changes = (1, -1, 10, -10, 2**31, 2**63, 2**64, 10**400)
    holder[key] = draft.pick((holder[key] + draft.pick(changes), draft.pick(NUMBERS)))
    finish(draft)


def set_key(draft: Draft) -> None:
    """Rename, add, repeat or lose a key, or an entry of a list."""
    holder, key = pick_place(draft)
    what = draft.pick(("lose", "rename", "add"))
    if isinstance(holder, dict):
        if what != "add":
            kept = holder.pop(key)
        if what != "lose":
            holder[draft.pick(NAMES)] = value(draft) if what == "add" else kept
    elif what == "lose":
        holder.pop(key)
    else:
        holder.insert(key, holder[key] if what == "rename" else value(draft))
    finish(draft)


def set_name(draft: Draft) -> None:
    """Give a file, feature, target, set, data type or era another name."""
    document = draft.document
    what = draft.pick(("file", "features", "targets", "feature_sets", "eras", "data_types"))
    name = draft.pick(NAMES)
    if what == "file":
        draft.pick(document["shards"])["file"] = name
    elif what in ("features", "targets"):
        if document[what]:
            document[what][draft.rng.integers(len(document[what]))] = name
    else:
        holder = document["feature_sets"] if what == "feature_sets" else pick_batch(draft)[what]
        if holder:
            rename(holder, draft.pick(holder), name)
    finish(draft)


def rename(holder: dict[str, Any], old: str, new: str) -> None:
    """Rename a key in its place; a key of that name is lost."""
    renamed = {new if key == old else key: value for key, value in holder.items()}
    holder.clear()
    holder.update(renamed)


def pick_batch(draft: Draft) -> dict[str, Any]:
    return draft.pick(batch for shard in draft.document["shards"] for batch in shard["batches"])


def set_eras(draft: Draft) -> None:
    """Tell of other eras, data types or missing targets, so that all sums fit."""
    draft.pick((_exchange_eras, _rename_era, _move_rows, _exchange_batches, _set_missing))(draft)
    draft.fixes = draft.pick(("nothing", "checksums", "checksums"))


def _exchange_eras(draft: Draft) -> None:
    """The counts of two eras, or two eras' names all over the set."""
    eras = sorted({era for batch in batches(draft) for era in batch["eras"]})
    one, two = draft.pick(eras), draft.pick(eras)
    other = {one: two, two: one}
    for batch in batches(draft):
        batch["eras"] = {other.get(era, era): count for era, count in batch["eras"].items()}


def _rename_era(draft: Draft) -> None:
    batch = pick_batch(draft)
    eras = [era for batch in batches(draft) for era in batch["eras"]]
    rename(batch["data_types"] or batch["eras"], next(iter(batch["data_types"]), ""), "live_")
    new = draft.pick((*eras, "0999", "new"))
    if new not in batch["eras"]:
        rename(batch["eras"], draft.pick(batch["eras"]), new)


def _move_rows(draft: Draft) -> None:
    batch = pick_batch(draft)
    counts = batch[draft.pick(("eras", "data_types"))]
    if counts:
        one = draft.pick(counts)
        counts[one] -= 1
        counts[draft.pick((*counts, "0500"))] = counts.get("0500", 0) + 1


def _exchange_batches(draft: Draft) -> None:
    """What is said of two record batches that are equally long, or are made so."""
    one, two = pick_batch(draft), pick_batch(draft)
    if one["rows"] == two["rows"]:
        one["eras"], two["eras"] = two["eras"], one["eras"]
    else:
        one["eras"] = {next(iter(two["eras"])): one["rows"]}


def _set_missing(draft: Draft) -> None:
    batch = pick_batch(draft)
    for target in draft.document["targets"]:
        batch["missing"][target] = int(draft.rng.integers(1, batch["rows"] + 1))


def batches(draft: Draft) -> list[dict[str, Any]]:
    return [batch for shard in draft.document["shards"] for batch in shard["batches"]]


def set_version(draft: Draft) -> None:
    draft.document["version"] = draft.pick(
        (0, 2, -1, 1.0, True, "1", None, 2**64, [1], nested(980, "["))
    )
    if draft.rng.random() < 0.3:
        draft.document["format"] = draft.pick(("", "petastorm", None, 1, nested(985, "{")))
    finish(draft)


def set_text(draft: Draft) -> None:
    """Something that is no manifest, is one in another encoding, or says a thing twice."""
    text = manifest_text(draft.document)
    key = draft.pick(draft.document)
    twice = f'{{"{key}": {json.dumps(draft.pick(draft.document.values()))}, '.encode()
    depth = draft.pick(DEPTHS)
    options = (
        *(
            b"",
            b"\0" * 4096,
            b"[]",
            b"null",
            b'"x"',
            b"NaN",
            b"-Infinity",
            b"{}",
            b"\xef\xbb\xbf" + text,
        ),
        *(text.decode().encode("utf-16"), text.decode().encode("utf-32"), text + text, text + b"}"),
        *(b"[" * depth, b'{"a":' * depth, b"[" * depth + b"]" * depth, b"9" * depth),
        *(twice + text[1:], text[:-2] + b", " + twice[1:-2] + b"}", text.replace(b'"', b"'")),
        *(text.replace(b"000", b"\xed\xa0\x80"), text.replace(b", ", b",\r\n"), text[::-1]),
        b'{"format": "numerai_sequence", "version": ' + b"[" * depth + b"]" * depth + b"}",
    )
    draft.text = draft.pick(options)


def set_size(draft: Draft) -> None:
    """A manifest of megabytes: in one string, in numbers, in lists, in batches or in space."""
    mib = draft.pick((0.4, 0.7, 0.99, 0.99, 1.01, 2, 4, 8, 20, 120))
    size = int(mib * (1 << 20))
    draft.fixes = "nothing"
    if mib < 5 and draft.rng.random() < 0.5:
        _enlarge(draft, size - 200_000)
        return
    head, tail = b'{"format": "numerai_sequence", "version": 1, "more": ', b"}"
    size -= len(head) + 10
    units = (b"[],", b"{},", b"1,", b"300,", b'{"":1},', b'{"":{}},', b"[[[]]],", b'"a",', b"1.5,")
    unit = draft.pick((*units, b" ", b"9", "🐍".encode(), "é".encode(), b"\\u0100"))
    if unit in (b" ", b"9"):
        inner = unit * size + b"1"
    elif unit in units:
        inner = b"[" + unit * (size // len(unit)) + b"1]"
    else:
        inner = b'"' + unit * (size // len(unit)) + b'"'
    draft.text = head + inner + tail


def _enlarge(draft: Draft, size: int) -> None:
    """A manifest of about a size in which everything has the right type."""
    document = draft.document
    shard = draft.pick(document["shards"])
    batch = {"rows": 0, "eras": {}, "data_types": {}, "missing": {}}
    empty = shard | {"batches": []}
    names = [f"{number:020}" for number in range(size // 30)]
    places = list(range(len(document["features"])))
    sources = document["sources"]
    changes = {
        "features": lambda: document["features"].extend(names),
        "targets": lambda: (
            document["targets"].extend(names[::4]),
            pick_batch(draft)["missing"].update(dict.fromkeys(names[::4], 1)),
        ),
        "sets": lambda: document["feature_sets"].update(
            dict.fromkeys(names[:: len(places)], places)
        ),
        "eras": lambda: pick_batch(draft)["eras"].update(dict.fromkeys(names, 1)),
        "sources": lambda: sources.extend(sources * (size // len(json.dumps(sources)))),
        "shards": lambda: document["shards"].extend(
            empty | {"file": f"{name}.arrow"} for name in names[::6]
        ),
        "batches": lambda: shard["batches"].extend([batch] * (size // len(json.dumps(batch)))),
    }
    changes[draft.pick(changes)]()
    sign(document)


def finish(draft: Draft) -> None:
    """Leave the manifest's own checksum wrong, or make it right."""
    draft.fixes = draft.pick(("nothing", "checksums"))
