"""Tampering: change a shard set as somebody does who also makes its sizes and checksums right."""

from __future__ import annotations

import hashlib
import json


def edit(folder, change):
    """Change a manifest, and make its checksum right."""
    document = json.loads((folder / "manifest.json").read_text())
    del document["checksum"]
    change(document)
    document["checksum"] = hashlib.sha256(json.dumps(document).encode()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(document))


def put(folder, name, content):
    """Replace a shard file, and make its size and checksums right."""

    def change(document):
        [shard] = [shard for shard in document["shards"] if shard["file"] == name]
        shard |= {"bytes": len(content), "checksum": hashlib.sha256(content).hexdigest()}

    (folder / name).unlink()
    (folder / name).write_bytes(content)
    edit(folder, change)
