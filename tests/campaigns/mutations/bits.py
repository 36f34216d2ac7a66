"""Bits: damage to the bytes of files, as a failing disk does it, or somebody with a hex editor."""

import struct
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from campaigns.mutations.changed_copy import Draft, manifest_text, sign

MAGIC = b"ARROW1"
#: What overflows, points nowhere, or looks like nothing.
WORDS = (0, 1, 2, 7, 8, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 8)
SIZES = (2, 4, 8)

Span = tuple[int, int]


def messages(content: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield where a whole file's messages are: offset, length of the metadata, of the body."""
    file = pa.BufferReader(content)
    file.seek(8)
    while struct.unpack_from("<I", content, file.tell() + 4)[0]:
        offset = file.tell()
        metadata = 8 + struct.unpack_from("<I", content, offset + 4)[0]
        pa.ipc.read_message(file)
        yield offset, metadata, file.tell() - offset - metadata


def footer(content: bytes) -> Span:
    """Return where the footer's flatbuffer starts and stops."""
    stop = len(content) - len(MAGIC) - 4
    return stop - struct.unpack_from("<i", content, stop)[0], stop


def headers(content: bytes) -> list[Span]:
    """Return where the flatbuffers of the record batches start and stop."""
    found = [(offset + 8, offset + metadata) for offset, metadata, body in messages(content)]
    return found[1:]  # the first is the schema's


def bodies(content: bytes) -> list[Span]:
    found = [(o + metadata, o + metadata + body) for o, metadata, body in messages(content)]
    return found[1:]


def flip_values(draft: Draft) -> None:
    """Flip bits of features, targets, ids or eras."""
    draft.fixes = "nothing"  # with the right checksum they would be values like any other
    name = draft.pick_file()
    _flip(draft, name, draft.pick(bodies(draft.files[name])))


def flip_footer(draft: Draft) -> None:
    name = draft.pick_file()
    start, stop = footer(draft.files[name])
    _flip(draft, name, (start, stop + 10))


def flip_header(draft: Draft) -> None:
    name = draft.pick_file()
    start, stop = draft.pick(headers(draft.files[name]))
    _flip(draft, name, (start - 8, stop))


def flip_anywhere(draft: Draft) -> None:
    draft.fixes = "nothing"
    name = draft.pick(draft.files)
    _flip(draft, name, (0, len(draft.files[name])))


def flip_manifest(draft: Draft) -> None:
    text = bytearray(manifest_text(draft.document))
    _flip_bits(draft.rng, text, (0, len(text)))
    draft.text = bytes(text)


def _flip(draft: Draft, name: str, span: Span) -> None:
    content = bytearray(draft.files[name])
    _flip_bits(draft.rng, content, span)
    draft.files[name] = bytes(content)


def _flip_bits(rng: np.random.Generator, content: bytearray, span: Span) -> None:
    """Flip one bit, or several, near each other or not."""
    count = 1 if rng.random() < 0.5 else int(rng.integers(2, 9))
    width = (span[1] - span[0]) if rng.random() < 0.7 else min(16, span[1] - span[0])
    start = int(rng.integers(span[0], span[1] - width + 1))
    for place in rng.integers(start, start + width, count).tolist():
        content[place] ^= 1 << int(rng.integers(8))


def set_footer_words(draft: Draft) -> None:
    """Put offsets, lengths and counts into the footer that it cannot have."""
    name = draft.pick_file()
    _set_words(draft, name, footer(draft.files[name]))


def set_header_words(draft: Draft) -> None:
    """Put offsets, lengths and counts into a record batch's header that it cannot have."""
    name = draft.pick_file()
    _set_words(draft, name, draft.pick(headers(draft.files[name])))


def _set_words(draft: Draft, name: str, span: Span) -> None:
    content = bytearray(draft.files[name])
    size = draft.pick(SIZES)
    for _ in range(draft.pick((1, 1, 2, 5))):
        place, other = (
            int(draft.rng.integers(span[0], span[1] - size) // size) * size for _ in "ab"
        )
        word = _word(draft, len(content)).to_bytes(8, "little")[:size]
        if draft.rng.random() < 0.4:  # two that overlap, or in another order
            word = bytes(content[other : other + size])
        content[place : place + size] = word
    draft.files[name] = bytes(content)


def _word(draft: Draft, length: int) -> int:
    value = draft.pick((*WORDS, length, length - 8, length + 8, draft.rng.integers(length)))
    return int(value) * draft.pick((1, 1, -1)) % 2**64


def cut(draft: Draft) -> None:
    name = draft.pick(draft.files)
    draft.files[name] = draft.files[name][: int(draft.rng.integers(len(draft.files[name])))]


def lengthen(draft: Draft) -> None:
    """Append zeros, noise or the end of the file; or put them into the middle."""
    name = draft.pick(draft.files)
    content = draft.files[name]
    count = int(draft.pick((1, 8, 10, 64, 4096, draft.rng.integers(1, 10_000))))
    more = draft.pick((bytes(count), draft.rng.bytes(count), content[-count:]))
    at = draft.pick((len(content), int(draft.rng.integers(len(content)))))
    if at < len(content):  # with the right checksum these would be other values, as good as any
        draft.fixes = draft.pick(("nothing", "sizes"))
    draft.files[name] = content[:at] + more + content[at:]


def cut_manifest(draft: Draft) -> None:
    text = manifest_text(draft.document)
    draft.text = text[: int(draft.rng.integers(len(text)))]


def blank(draft: Draft) -> None:
    """Fill a part of a file with zeros, or with another part: a sector that was lost."""
    draft.fixes = "nothing"
    name = draft.pick(draft.files)
    content = bytearray(draft.files[name])
    size = min(len(content), draft.pick((8, 64, 512, 4096)))
    at, other = (int(draft.rng.integers(len(content) - size + 1)) for _ in "ab")
    content[at : at + size] = draft.pick(
        (bytes(size), content[other : other + size], b"\xff" * size)
    )
    draft.files[name] = bytes(content)


def swap_shards(draft: Draft) -> None:
    """Exchange two files, or the places of two in the manifest."""
    one, two = (draft.pick(draft.files) for _ in "ab")
    if draft.rng.random() < 0.7:
        draft.files[one], draft.files[two] = draft.files[two], draft.files[one]
    else:
        shards = draft.document["shards"]
        first, second = (draft.pick(range(len(shards))) for _ in "ab")
        names = shards[first]["file"], shards[second]["file"]
        shards[second]["file"], shards[first]["file"] = names


def double_shard(draft: Draft) -> None:
    """One file in the place of another; or two entries of one file."""
    one, two = (draft.pick(draft.files) for _ in "ab")
    draft.files[one] = draft.files[two]
    if draft.rng.random() < 0.5:
        draft.document["shards"].append(draft.pick(draft.document["shards"]))
        sign(draft.document)


def lose_shard(draft: Draft) -> None:
    """A file that is gone; or its entry, or both."""
    lost = int(draft.rng.integers(3))
    name = draft.pick(draft.files)
    if lost != 1:
        del draft.files[name]
    if lost:
        shards = draft.document["shards"]
        draft.document["shards"] = [shard for shard in shards if shard["file"] != name]
    draft.fixes = draft.pick(("nothing", "checksums"))


def take_other(draft: Draft) -> None:
    """A shard of another set with the same schema."""
    draft.fixes = draft.pick(("nothing", "sizes"))  # its checksum would make it one of this set
    name = draft.pick_file()
    draft.files[name] = draft.base.other[name]


def keep_stream(draft: Draft) -> None:
    """A file without its footer: an Arrow stream; or with two footers."""
    name = draft.pick_file()
    content = draft.files[name]
    start, _ = footer(content)
    choice = draft.pick(("stream", "magic", "twice"))
    if choice == "stream":
        draft.files[name] = content[8:start]
    elif choice == "magic":
        draft.files[name] = content[:start] + struct.pack("<i", 0) + MAGIC
    else:
        draft.files[name] = content + content[start:]
