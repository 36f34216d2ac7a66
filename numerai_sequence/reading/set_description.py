"""Set description: the content of a manifest, as attributes of a shard set."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from ..checks import digest
from ..format.layout import Manifest
from ..ordering.eras import sort_eras


class SetDescription:
    """The description of a shard set, read from its manifest. `ShardSet` adds the files.

    Attributes
    ----------
    folder : path
    manifest : Manifest
        Description of the open shard files.
    """

    folder: Path
    manifest: Manifest

    def __len__(self) -> int:
        return len(self.manifest.shards)

    def __repr__(self) -> str:
        return (
            f"<ShardSet {str(self.folder)!r}: {self.rows:,} rows x {len(self.features):,} features "
            f"({self.encoding}), {len(self.targets)} targets, {len(self.eras):,} eras, "
            f"{len(self)} shards>"
        )

    @property
    def rows(self) -> int:
        return sum(shard.rows for shard in self.manifest.shards)

    @property
    def features(self) -> tuple[str, ...]:
        return self.manifest.features

    @property
    def targets(self) -> tuple[str, ...]:
        return self.manifest.targets

    @property
    def feature_sets(self) -> dict[str, tuple[str, ...]]:
        features, sets = self.manifest.features, self.manifest.feature_sets
        return {name: tuple(features[place] for place in sets[name]) for name in sets}

    @property
    def missing(self) -> dict[str, int]:
        counts = self._count("missing")
        return {target: counts[target] for target in self.targets if target in counts}

    @property
    def encoding(self) -> str:
        return self.manifest.encoding

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the content: the column names and the checksums of the files, in order."""
        content = [self.encoding, self.features, self.targets]
        return digest([*content, [file.checksum for file in self.manifest.files]])

    @property
    def paths(self) -> list[Path]:
        return [self.folder / shard.file for shard in self.manifest.shards]

    @property
    def era_rows(self) -> dict[str, int]:
        """Number of rows of each era, oldest era first."""
        counts = self._count("eras")
        return {era: counts[era] for era in sort_eras(counts)}

    @property
    def eras(self) -> list[str]:
        return list(self.era_rows)

    @property
    def data_types(self) -> list[str]:
        return sorted(self._count("data_types"))

    def _count(self, what: str) -> Counter[str]:
        counts: Counter[str] = Counter()
        for shard in self.manifest.shards:
            for batch in shard.batches:
                counts.update(getattr(batch, what))
        return counts
