"""Mutations: a small shard set becomes one that is damaged, or that somebody has changed."""

from pathlib import Path

import numpy as np

from campaigns.mutations import arrow_files, bits, manifests, wrong_files
from campaigns.mutations.base_sets import Base
from campaigns.mutations.changed_copy import Draft

KINDS = {
    "bits of values flipped": bits.flip_values,
    "bits of a footer flipped": bits.flip_footer,
    "bits of a record batch's header flipped": bits.flip_header,
    "bits anywhere flipped": bits.flip_anywhere,
    "bits of the manifest flipped": bits.flip_manifest,
    "words of a footer replaced": bits.set_footer_words,
    "words of a record batch's header replaced": bits.set_header_words,
    "buffers and nodes of a header exchanged": arrow_files.repeat_buffers,
    "a shard cut short": bits.cut,
    "a shard lengthened": bits.lengthen,
    "a manifest cut short": bits.cut_manifest,
    "a sector lost": bits.blank,
    "a footer lost, or there twice": bits.keep_stream,
    "shards swapped": bits.swap_shards,
    "a shard there twice": bits.double_shard,
    "a shard lost": bits.lose_shard,
    "a shard of another set": bits.take_other,
    "a value of the manifest replaced": manifests.set_value,
    "a number of the manifest changed": manifests.set_number,
    "a key of the manifest changed": manifests.set_key,
    "a name in the manifest changed": manifests.set_name,
    "other eras in the manifest, all sums right": manifests.set_eras,
    "another format or version": manifests.set_version,
    "a manifest that is none": manifests.set_text,
    "a manifest of megabytes": manifests.set_size,
    "a column of another type": arrow_files.set_type,
    "nulls, or a column like the right one": arrow_files.set_nulls,
    "a tensor of a strange type": arrow_files.set_extension,
    "features of another width": arrow_files.set_width,
    "other columns": arrow_files.set_columns,
    "other metadata": arrow_files.set_metadata,
    "metadata where there is none": arrow_files.add_metadata,
    "compressed, with wrong lengths": arrow_files.compress,
    "compressed, 100 MB of one text": arrow_files.expand,
    "offsets of texts that lead astray": arrow_files.set_offsets,
    "other eras, data types or targets, all sums right": arrow_files.set_counted,
    "other record batches": arrow_files.set_batches,
    "other blocks in the footer": arrow_files.set_blocks,
    "the other endianness": arrow_files.swap_endianness,
    "no file, but a pipe, device, folder or link": wrong_files.replace,
    "a link to the file": wrong_files.link,
}


def write_mutant(folder: Path, bases: list[Base], *, seed: int, number: int) -> tuple[str, Base]:
    """Write the mutant of this number into a folder; return its kind and what it was made from."""
    rng = np.random.default_rng([seed, number])
    names = list(KINDS)
    name, base = names[number % len(names)], bases[number // len(names) % len(bases)]
    draft = Draft(base, rng)
    KINDS[name](draft)
    draft.write(folder)
    return name, base
