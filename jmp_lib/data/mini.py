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
from jmp_lib.files import file_sha256
from jmp_lib.paths import MINI_DIR

_REQUIRED = ["natoms", "pos", "numbers", "group", "group_names"]
_OPTIONAL = ["cell", "tags", "fixed", "forces"]


def list_mini(folder: str | Path = MINI_DIR) -> list[str]:
    """Names of the mini sets at hand, sorted."""
    return sorted(path.stem for path in Path(folder).glob("*.npz"))


def card(name: str, folder: str | Path = MINI_DIR) -> dict:
    """The card of mini set ``name``: name, stands_for, how_made, level_of_theory, counts, units, what_it_is_not, ...

    Raises ``FileNotFoundError`` when there is no such set (naming those there are) and ``ValueError`` for a card
    that is not JSON or lacks its hash.
    """
    path = Path(folder) / f"{name}.card.json"
    if not path.is_file():
        have = ", ".join(list_mini(folder)) or "none"
        raise FileNotFoundError(f"{path} is missing: there is no mini set {name!r} (at hand: {have})")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise ValueError(f"{path} is not a JSON file; {_mend(name)}") from None
    if not isinstance(found, dict) or "sha256" not in found:
        raise ValueError(f"{path} does not state the sha256 of its npz file; {_mend(name)}")
    return found


def load_mini(name: str, folder: str | Path = MINI_DIR) -> StructureSet:
    """Mini set ``name`` (``qm9-mini``, ``rmd17-mini-ethanol``, ...), checked against the hash on its card.

    Raises ``FileNotFoundError`` for a missing file and ``ValueError`` for one that is damaged, is not the one its
    card describes, or holds structures no training may see.
    """
    about = card(name, folder)
    path = Path(folder) / f"{name}.npz"
    arrays = read_npz(path, {}, mend=_mend(name))
    if file_sha256(path) != about["sha256"]:
        raise ValueError(f"{path} is not the file its card describes (the sha256 differs); {_mend(name)}")
    missing = [key for key in _REQUIRED if key not in arrays]
    if missing:
        raise ValueError(f"{path} has no array {', '.join(map(repr, missing))}; {_mend(name)}")
    scalars = {key: values for key, values in arrays.items() if key not in _REQUIRED + _OPTIONAL}
    return StructureSet.from_arrays(name, arrays["natoms"], arrays["pos"], arrays["numbers"],
                                    description=describe(about), group=arrays["group"],
                                    group_names=arrays["group_names"], scalars=scalars, where=str(path),
                                    **{key: arrays[key] for key in _OPTIONAL if key in arrays})


def load_parts(name: str, folder: str | Path) -> StructureSet:
    """A set of the large companion (``anix-large``): all parts of it that lie in ``folder``, as one.

    Groups of the same name are one group. Raises ``FileNotFoundError`` when there is no part, ``ValueError`` as ``load_mini``.
    """
    files = sorted(Path(folder).glob(f"{name}-*.card.json"))  # written after its npz
    if not files:
        raise FileNotFoundError(f"{folder} has no part of {name}: make some with `python -m tools.generate large --out {folder}`")
    parts = [load_mini(file.name.removesuffix(".card.json"), folder) for file in files]
    names = sorted(set().union(*(part.group_names for part in parts)))
    number = {group: row for row, group in enumerate(names)}
    column = {key: np.concatenate([getattr(part, key) for part in parts])
              for key in ("natoms", "pos", "atomic_numbers", "cell", "pbc", "tags", "fixed", "forces")}  # fmt: skip
    group = [np.array([number[text] for text in part.group_names])[part.group] for part in parts]
    level = card(parts[0].name, folder).get("level_of_theory")
    return StructureSet.from_arrays(
        name, column.pop("natoms"), column.pop("pos"), column.pop("atomic_numbers"), group=np.concatenate(group),
        group_names=names, scalars={"energy": np.concatenate([part.scalars["energy"] for part in parts])}, where=str(folder),
        description=f"{name}, {len(parts)} parts, labels by {level}", **column,
    )  # fmt: skip


def describe(about: dict) -> str:
    """One line from a card: name, level of theory, what it stands for."""
    return f"{about.get('name')}, labels by {about.get('level_of_theory')}, stands for {about.get('stands_for')}"


def _mend(name: str) -> str:
    return f"restore it from the repository or make it again with `python -m tools.generate {name}`"
