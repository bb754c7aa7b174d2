"""What an original file holds, read as it is: counts, elements, ranges of labels, one example, and what would be left out.

>>> inspect("random1000100.traj", "oc20")["structures"]
33
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable, Iterator
from inspect import signature
from pathlib import Path

import numpy as np
from ase.data import chemical_symbols

from jmp_lib.data.families import FAMILIES
from jmp_lib.data.formats import in_one_sentence
from jmp_lib.data.tasks import PRETRAINING_SETS
from jmp_lib.strict import nearest

_AS_STORED = {"oc20": {"energy": "stored"}}  # options that take a file's values as they are
_NO_LABEL = {"pos", "atomic_numbers", "cell", "pbc", "tags", "fixed", "id", "sid", "fid", "group"}
_UNITS = {"energy": " eV", "forces": " eV/Å"}  # of the others: the loader's unit of facts/tasks.csv


def reader(dataset: str) -> Callable[..., Iterator[dict]]:
    """The function ``read(path, **options)`` of ``dataset``; ``ValueError`` for a name that is no data set."""
    modules = {name: family.module for name, family in FAMILIES.items()}
    modules |= {name: f"jmp_lib.data.{name}" for name in PRETRAINING_SETS}
    name = dataset.lower().replace("-", "").replace("_", "")
    if name not in modules:
        raise ValueError(f"there is no data set {dataset!r}; {nearest(name, modules).replace('key', 'name')}")
    return importlib.import_module(modules[name]).read


def read(path: str | Path, dataset: str, left_out: list | None = None, **options) -> Iterator[dict]:
    """Structures of an original file (or folder of files) of ``dataset``; left_out takes the reasons of the others.

    Raises ``ValueError`` for an option that its reader does not have, and as the reader.
    """
    found = reader(dataset)
    parameters = signature(found).parameters
    known = [key for key in parameters if key not in ("path", "rejected")]
    for key in options:
        if key not in known:
            hint = nearest(key, known) if known else "it has none"
            raise ValueError(f"the reader of {dataset} has no option {key!r}; {hint}")
    return _read(found(path, **options, **({"rejected": left_out} if "rejected" in parameters else {})), path, dataset)


def _read(structures: Iterator[dict], path: str | Path, dataset: str) -> Iterator[dict]:
    """The structures; whatever their reader did not expect is one sentence with the file, too."""
    with in_one_sentence(path, f"get it anew (`python -m jmp_lib data list` says what there is of {dataset})"):
        yield from structures


def inspect(path: str | Path, dataset: str, **options) -> dict:
    """What a file (or folder of files) of ``dataset`` holds, read once.

    Returns structures, atoms, periodic (structures with a cell), groups, elements {symbol: atoms}, labels {name: [least,
    greatest value]}, example (the first structure: name, atoms and its labels of one number), left_out [{"count",
    "reason"}], where reasons that differ in numbers alone are counted together, as the first of them. Raises as
    :func:`read`, and ``ValueError`` or ``FileNotFoundError`` (one sentence) for a damaged, wrong or missing file.
    """
    name, left_out = reader(dataset).__module__.rsplit(".")[-1], []
    options = _AS_STORED.get(name, {}) | options
    structures = read(path, name, left_out, **options)
    if not Path(path).exists():
        raise FileNotFoundError(f"{path} is missing; give the path of a file of {name}")
    atoms, labels, groups, reasons = np.zeros(len(chemical_symbols), np.int64), {}, set(), {}
    count, periodic, example = 0, 0, None
    for structure in structures:
        count += 1
        atoms += np.bincount(structure["atomic_numbers"], minlength=len(atoms))
        periodic += bool(np.any(structure["pbc"]))
        groups |= {structure["group"]} if "group" in structure else set()
        for key in structure.keys() - _NO_LABEL:
            least, most = labels.get(key, (np.inf, -np.inf))
            labels[key] = [min(least, float(np.min(structure[key]))), max(most, float(np.max(structure[key])))]
        example = example or {"name": str(structure.get("sid", structure["id"])), "atoms": len(structure["pos"])} | {
            key: float(structure[key]) for key in sorted(labels) if np.ndim(structure[key]) == 0}  # fmt: skip
    for reason in left_out:
        reasons.setdefault(re.sub(r"\d+", "#", reason), []).append(reason)
    return {
        "file": str(path), "dataset": name, "options": options, "structures": count, "atoms": int(atoms.sum()),
        "periodic": periodic, "groups": len(groups),
        "elements": {chemical_symbols[z]: int(atoms[z]) for z in np.flatnonzero(atoms)},
        "labels": {key: labels[key] for key in sorted(labels)}, "example": example,
        "left_out": [{"count": len(alike), "reason": alike[0]} for alike in reasons.values()],
    }  # fmt: skip


def main(file: str, dataset: str, options: list[str], as_json: bool) -> int:
    """Prints what :func:`inspect` finds; options are texts NAME=VALUE. Returns the exit code 0."""
    if bare := [option for option in options if "=" not in option]:
        raise ValueError(f"--option takes NAME=VALUE, not {bare[0]!r}")
    found = inspect(file, dataset, **dict(option.partition("=")[::2] for option in options))
    if as_json:
        print(json.dumps(found, indent=2))
        return 0
    for key in ("structures", "atoms", "periodic", "groups"):
        print(f"{key:12s} {found[key]}")
    print(f"{'elements':12s} {' '.join(found['elements'])}")
    for name, (least, most) in found["labels"].items():
        print(f"{'label':12s} {name}: {least:.6g} to {most:.6g}{_UNITS.get(name, '')}")
    print(f"{'example':12s} " + ", ".join(f"{key} {value}" for key, value in (found["example"] or {}).items()))
    print(f"{'left out':12s} {sum(about['count'] for about in found['left_out'])}")
    for about in found["left_out"]:
        print(f"{'':12s} {about['count']} times: {about['reason']}")
    return 0
