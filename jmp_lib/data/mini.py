"""The mini data: small companions of the ten published sets that ship with the package.

Each set is ``jmp_lib/data/mini/<name>.npz`` (plain arrays) beside ``<name>.card.json``, which says how it was
made and what it is not. The labels are those of the card's level of theory, never those of the published set.

npz arrays: natoms int32 (S,), pos float32 (ΣN,3) Å, numbers uint8 (ΣN,), group int32 (S,), group_names <U (G,);
where the set has them cell float32 (S,3,3) Å (then periodic in three directions), tags uint8 (ΣN,), fixed bool
(ΣN,), forces float32 (ΣN,3) eV/Å, energy float64 (S,) eV and scalar targets float64 (S,) in the task's label unit.

The large companion of the pre-training sets, which does not ship, is made of parts that are such sets.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from jmp_lib.data.formats import read_npz
from jmp_lib.data.structures import StructureSet
from jmp_lib.files import file_sha256, reading
from jmp_lib.paths import MINI_DIR

_REQUIRED = ("natoms", "pos", "numbers", "group", "group_names")
_OPTIONAL = ("cell", "tags", "fixed", "forces")


def list_mini(folder: str | Path = MINI_DIR) -> list[str]:
    """Names of the mini sets at hand, sorted."""
    return sorted(path.stem for path in Path(folder).glob("*.npz"))


def card(name: str, folder: str | Path = MINI_DIR) -> dict:
    """The card of mini set ``name``: name, stands_for, how_made, level_of_theory, counts, units, what_it_is_not, ...

    Raises ``FileNotFoundError`` when there is no such set (naming those there are) and ``ValueError`` for a
    damaged card.
    """
    path = Path(folder) / f"{name}.card.json"
    if not path.is_file():
        have = ", ".join(list_mini(folder)) or "none"
        raise FileNotFoundError(f"{path} is missing: there is no mini set {name!r} (at hand: {have})")
    with reading(path, _mend(name)):
        return json.loads(path.read_text(encoding="utf-8"))


def load_mini(name: str, folder: str | Path = MINI_DIR) -> StructureSet:
    """Mini set ``name`` (``qm9-mini``, ``rmd17-mini-ethanol``, ...), checked against the hash on its card.

    Raises ``FileNotFoundError`` for a missing file and ``ValueError`` for one that is damaged, is not the one its
    card describes, or holds structures no training may see.
    """
    about = card(name, folder)
    path = Path(folder) / f"{name}.npz"
    arrays = read_npz(path, dict.fromkeys(_REQUIRED), mend=_mend(name))
    if file_sha256(path) != about.get("sha256"):
        raise ValueError(f"{path} is not the file its card describes (the sha256 differs); {_mend(name)}")
    natoms, pos, numbers, group, names = (arrays.pop(key) for key in _REQUIRED)
    optional = {key: arrays.pop(key) for key in _OPTIONAL if key in arrays}
    description = f"{name}, labels by {about.get('level_of_theory')}, stands for {about.get('stands_for')}"
    return StructureSet.from_arrays(name, natoms, pos, numbers, description=description, group=group, group_names=names,
                                    scalars=arrays, where=str(path), **optional)


def load_parts(name: str, folder: str | Path) -> StructureSet:
    """A set of the large companion (``anix-large``): all parts of it that lie in ``folder``, as one.

    Groups of the same name are one group. Raises ``FileNotFoundError`` when there is no part,
    ``ValueError`` as ``load_mini``.
    """
    files = sorted(Path(folder).glob(f"{name}-*.card.json"))  # written after its npz
    if not files:
        raise FileNotFoundError(f"{folder} has no part of {name}: "
                                f"make some with `python -m tools.generate large --out {folder}`")
    parts = [load_mini(file.name.removesuffix(".card.json"), folder) for file in files]
    names, group = np.unique(np.concatenate([np.array(part.group_names)[part.group] for part in parts]),
                             return_inverse=True)
    columns = {key: np.concatenate([getattr(part, key) for part in parts])
               for key in ("natoms", "pos", "atomic_numbers", "cell", "pbc", "tags", "fixed", "forces")}  # fmt: skip
    description = f"{name}, {len(parts)} parts, labels by {card(parts[0].name, folder).get('level_of_theory')}"
    return StructureSet.from_arrays(name, **columns, group=group, group_names=names,
                                    description=description, where=str(folder),
                                    scalars={"energy": np.concatenate([part.scalars["energy"] for part in parts])})


def _mend(name: str) -> str:
    return f"restore it from the repository or make it again with `python -m tools.generate {name}`"
