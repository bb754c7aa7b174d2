"""Pre-training on generated and published structures together: each of the four sets from both sources.

The two sources of a set have energies on different scales (GFN2-xTB totals against wB97X totals, say). Before they are
put together, the energies of each are taken relative to per-element reference energies fitted on its own training part,
so what is learnt is the energy of bonding, which the levels of theory agree on far better. Forces stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from jmp_lib.data import pretraining_files
from jmp_lib.data.collect import to_set
from jmp_lib.data.structures import StructureSet

_KEPT = ("pos", "atomic_numbers", "cell", "pbc", "tags", "fixed", "forces", "energy")


def join(key: str, generated: tuple, data_root=None, caps=None) -> tuple[StructureSet, StructureSet]:
    """Training and validation part of set ``key``: the ``generated`` parts, then those of the published files at hand.

    Energies in eV relative to the reference energies of their source (see the module). caps: {"train": n, "val": n} of
    the published source alone. Where no file is at hand the generated structures remain alone.
    """
    sources = [generated]
    if pretraining_files.why_not(key, data_root) is None:
        sources.append(pretraining_files.load(key, data_root, caps))
    name = "+".join(dict.fromkeys(train.name for train, _ in sources))
    parts = []
    for which, part in enumerate(("train", "val")):
        rows = chain.from_iterable(_relative(source[0], source[which]) for source in sources)
        numbered = ({**structure, "id": row} for row, structure in enumerate(rows))
        parts.append(to_set(name, numbered, f"{part}: energies relative to the references of each source", where=name))
    return parts[0], parts[1]


def _relative(train, part) -> Iterator[dict]:
    """Structures of ``part`` with energies (eV) relative to the reference energies fitted on ``train``."""
    from jmp_lib.train.normalise import fit

    reference = fit(iter(train)).energy()
    for structure in part:
        kept = {key: structure[key] for key in _KEPT}
        yield {**kept, "energy": structure["energy"] - reference.offset(structure["atomic_numbers"])}
