"""What an original file holds, read as it is: counts, energies and forces in eV and eV/Å, and what would be rejected.

>>> inspect("random1000100.traj", "oc20")["structures"]
33
"""

from __future__ import annotations

import importlib
import json
import math
import re
from collections.abc import Callable, Iterator
from inspect import signature
from pathlib import Path

import numpy as np
from ase.data import chemical_symbols

from jmp_lib.data.families import FAMILIES
from jmp_lib.data.tasks import PRETRAINING_SETS
from jmp_lib.strict import nearest

_AS_STORED = {"oc20": {"energy": "stored"}}  # options that take a file's values as they are
_NO_TARGET = ("pos", "atomic_numbers", "cell", "pbc", "tags", "fixed", "forces", "id", "sid", "fid", "group", "energy")
_REASONS = 20  # different reasons that are listed


class Running:
    """Count, mean, standard deviation (of the population) and extremes of numbers that come one by one."""

    def __init__(self):
        self.n, self.mean, self._squares, self.least, self.most = 0, 0.0, 0.0, math.inf, -math.inf

    def add(self, value: float) -> None:
        """One more number."""
        self.n += 1
        step = value - self.mean
        self.mean += step / self.n
        self._squares += step * (value - self.mean)
        self.least, self.most = min(self.least, value), max(self.most, value)

    @property
    def std(self) -> float | None:
        """Standard deviation, None before the first number."""
        return math.sqrt(self._squares / self.n) if self.n else None

    def summary(self) -> dict:
        """As a dictionary of numbers."""
        return {"n": self.n, "mean": self.mean, "std": self.std, "min": self.least, "max": self.most}


class Rejected:
    """Takes the sentences that a reader would append to a list, and counts those that differ in numbers alone."""

    def __init__(self):
        self.count, self.kinds = 0, {}

    def append(self, reason: str) -> None:
        """One more rejected structure."""
        self.count += 1
        kind = re.sub(r"\d+", "#", reason)
        if kind in self.kinds:
            self.kinds[kind]["count"] += 1
        elif len(self.kinds) < _REASONS:
            self.kinds[kind] = {"count": 1, "reason": reason}

    def summary(self) -> dict:
        """{"count", "reasons": [{"count", "reason" (of the first)}, ...]}, at most 20 kinds of reasons."""
        return {"count": self.count, "reasons": list(self.kinds.values())}


def reader(dataset: str) -> Callable[..., Iterator[dict]]:
    """The function ``read(path, **options)`` of ``dataset``; ``ValueError`` for a name that is no data set."""
    modules = {name: family.module for name, family in FAMILIES.items()}
    modules |= {name: f"jmp_lib.data.{name}" for name in PRETRAINING_SETS}
    name = dataset.lower().replace("-", "").replace("_", "")
    if name not in modules:
        raise ValueError(f"there is no data set {dataset!r}; {nearest(name, modules).replace('key', 'name')}")
    return importlib.import_module(modules[name]).read


def read(path: str | Path, dataset: str, left_out: list | Rejected | None = None, **options) -> Iterator[dict]:
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
    return found(path, **options, **({"rejected": left_out} if "rejected" in parameters else {}))


def inspect(path: str | Path, dataset: str, **options) -> dict:
    """Counts and statistics of an original file (or folder of files) of ``dataset``, read once in bounded memory.

    Returns structures, atoms, atoms_min, atoms_max, elements {symbol: atoms}, periodic (structures with a cell),
    groups, energy_mean and energy_std (eV, of the population; energies as the file holds them), force_rms (eV/Å,
    root of the mean square of the components), targets {name: n, mean, std, min, max in the loader's unit},
    rejected (see :meth:`Rejected.summary`). A statistic is None where the file has no such label. Raises as :func:`read`
    and ``ValueError`` or ``FileNotFoundError`` (one sentence) for a damaged, wrong or missing file.
    """
    name, rejected = reader(dataset).__module__.rsplit(".")[-1], Rejected()
    options = _AS_STORED.get(name, {}) | options
    structures = read(path, name, rejected, **options)
    if not Path(path).exists():
        raise FileNotFoundError(f"{path} is missing; give the path of a file of {name}")
    return _summed(structures, rejected) | {"file": str(path), "dataset": name, "options": options}


def _summed(structures, rejected: Rejected) -> dict:
    """The numbers of :func:`inspect`."""
    atoms = np.zeros(len(chemical_symbols), np.int64)
    sizes, energy, targets = Running(), Running(), {}
    squares, components, periodic, groups, seen = 0.0, 0, 0, set(), set()
    for structure in structures:
        name = structure.get("sid", structure["id"])
        key = hash((name, structure["id"] if structure.get("group") == name else None))
        if key in seen:
            rejected.append(f"{name}: field 'id': it occurs again")
            continue
        seen.add(key)
        numbers = structure["atomic_numbers"]
        atoms += np.bincount(numbers, minlength=len(atoms))[: len(atoms)]
        sizes.add(len(numbers))
        periodic += bool(np.any(np.asarray(structure["pbc"])))
        if "group" in structure:
            groups.add(hash(structure["group"]))
        if "energy" in structure:
            energy.add(float(structure["energy"]))
        if structure.get("forces") is not None:
            forces = structure["forces"].astype(np.float64)
            squares, components = squares + float((forces**2).sum()), components + forces.size
        for target in structure.keys() - set(_NO_TARGET):
            targets.setdefault(target, Running()).add(float(structure[target]))
    return {
        "structures": sizes.n,
        "atoms": int(atoms.sum()),
        "atoms_min": int(sizes.least) if sizes.n else None,
        "atoms_max": int(sizes.most) if sizes.n else None,
        "elements": {chemical_symbols[z]: int(atoms[z]) for z in np.flatnonzero(atoms)},
        "periodic": periodic,
        "groups": len(groups),
        "energy_mean": energy.mean if energy.n else None,
        "energy_std": energy.std,
        "force_rms": math.sqrt(squares / components) if components else None,
        "targets": {name: targets[name].summary() for name in sorted(targets)},
        "rejected": rejected.summary(),
    }


def main(file: str, dataset: str, options: list[str], as_json: bool) -> int:
    """Prints what :func:`inspect` finds; options are texts NAME=VALUE. Returns the exit code 0."""
    pairs = dict(option.partition("=")[::2] for option in options)
    if bare := [option for option in options if "=" not in option]:
        raise ValueError(f"--option takes NAME=VALUE, not {bare[0]!r}")
    found = inspect(file, dataset, **pairs)
    if as_json:
        print(json.dumps(found, indent=2))
        return 0
    for key in ("structures", "atoms", "periodic", "groups", "energy_mean", "energy_std", "force_rms"):
        unit = {"energy_mean": " eV", "energy_std": " eV", "force_rms": " eV/Å"}.get(key, "")
        print(f"{key:12s} {'none' if found[key] is None else found[key]}{unit if found[key] is not None else ''}")
    print(f"{'elements':12s} {' '.join(found['elements'])}")
    for name, values in found["targets"].items():
        print(f"{'target':12s} {name}: mean {values['mean']:.6g}, std {values['std']:.6g} of {values['n']}")
    print(f"{'rejected':12s} {found['rejected']['count']}")
    for about in found["rejected"]["reasons"]:
        print(f"{'':12s} {about['count']} times: {about['reason']}")
    return 0
