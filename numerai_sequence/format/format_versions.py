"""Format versions: refuse manifests that a later version of the package has written.

Later versions may add write options; older sets have their defaults. An unknown format version,
write option or encoding may change the meaning of the files, so it is an error that says to
upgrade. Any other unknown key of a manifest is ignored.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..checks import as_dict, as_text, short
from ..errors import ManifestError
from .encodings import ENCODINGS
from .layout import MISSING_FEATURE, VERSIONS, WriteOptions

FORMAT = "numerai_sequence"


def check_version(path: Path, document: Any) -> None:
    """Check that a JSON document is a manifest of a known format version.

    Raises
    ------
    ManifestError
    """
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        found = document.get("format") if isinstance(document, dict) else None
        raise ManifestError(
            f'{path}: not the manifest of a shard set; expected the line "format": "{FORMAT}"',
            path=path,
            found=None if found is None else short(found),
            expected=FORMAT,
        )
    found = document.get("version")
    if type(found) is not int or found not in VERSIONS:
        remedy = "upgrade numerai_sequence" if _is_newer(found) else "write the set again"
        expected = f"{VERSIONS[0]} to {VERSIONS[-1]}"
        raise ManifestError(
            f"{path}: found format version {short(found)}, expected {expected}; {remedy}",
            path=path,
            found=short(found),
            expected=expected,
        )


def _is_newer(version: Any) -> bool:
    """Return whether a version is later than the known ones. It may have any type."""
    try:
        return not isinstance(version, bool) and float(version) > VERSIONS[-1]
    except (TypeError, ValueError):
        return False


def check_known(path: Path, document: dict[str, Any]) -> None:
    """Check that the write options and encodings of a whole manifest are known.

    Raises
    ------
    ManifestError
    """
    options, known = as_dict(document["options"]), tuple(WriteOptions.__dataclass_fields__)
    for name in options:
        if name not in known:
            raise _newer(path, "write option", as_text(name), known)
    for encoding in (document["encoding"], options.get("encoding", document["encoding"])):
        if as_text(encoding) not in ENCODINGS:
            raise _newer(path, "encoding", encoding, tuple(ENCODINGS))
    missing = options.get("missing_feature", WriteOptions.missing_feature)
    if isinstance(missing, str) and missing not in MISSING_FEATURE:
        raise _newer(path, "missing_feature", missing, MISSING_FEATURE)


def _newer(path: Path, what: str, found: str, expected: tuple[str, ...]) -> ManifestError:
    return ManifestError(
        f"{path}: found {what} {short(found)}, expected one of {', '.join(expected)}; "
        "upgrade numerai_sequence",
        path=path,
        found=short(found),
        expected=expected,
    )
