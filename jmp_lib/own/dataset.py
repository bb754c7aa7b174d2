"""A user's data as a :class:`StructureSet` with its properties and units, refused with one sentence where unfit."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from jmp_lib.data.copies import copies
from jmp_lib.data.exchange import from_ase
from jmp_lib.data.structures import StructureSet
from jmp_lib.own.read import read_source
from jmp_lib.own.units import energy_factor, force_factor

FEWEST = 10  # structures: below this there is nothing to split
RESERVED = ("pos", "atomic_numbers", "cell", "pbc", "tags", "fixed", "id", "natoms", "batch", "graphs")


@dataclass(frozen=True)
class OwnData:
    """structures: energies in eV, forces in eV/Å, other properties in their own unit.

    properties: names of what is learnt (``("energy", "forces")`` for energies and forces); units: of each;
    groups: text of each structure or None; given: "train", "val" or "test" of each structure or None.
    """

    name: str
    structures: StructureSet
    properties: tuple[str, ...]
    units: dict[str, str]
    groups: np.ndarray | None
    given: np.ndarray | None

    @cached_property
    def copies(self) -> np.ndarray:
        """(S,) int64: the first structure that each one is a copy of (:mod:`jmp_lib.data.copies`)."""
        return copies(self.structures)

    @property
    def forces(self) -> bool:
        """Whether energies and forces are learnt."""
        return "forces" in self.properties


def read_own(source, properties: list[str], units: list[str] | None, *, labels_csv=None, group_key: str | None = None,
             name: str = "own", split_key: str = "split") -> OwnData:
    """Read and check; ``properties`` are names in the file: one or several scalars, or an energy and a (N,3) force array.

    units: one per property, asked for once because no file says them.  Raises ``ValueError`` or ``FileNotFoundError``.
    """
    frames = read_source(source, labels_csv)
    where = "the table" if hasattr(source, "columns") else str(source)
    _check_request(properties, units, where)
    columns = {key: [_value(atoms, key, f"{where}, structure {i}") for i, atoms in enumerate(frames)] for key in properties}
    if len(frames) < FEWEST:
        raise ValueError(f"{where} holds {len(frames)} structure{'s' * (len(frames) != 1)}: at least {FEWEST} are needed to "
                         "train, validate and test")
    vectors = [key for key in properties if np.ndim(columns[key][0]) == 2]
    if vectors:
        columns, units = _energies_and_forces(columns, vectors, units, where)
    for key, values in columns.items():
        _check_values(key, values, where)
    labels = dict(zip(columns, units))
    groups = None if group_key is None else np.array([_text(a, group_key, f"{where}, structure {i}")
                                                      for i, a in enumerate(frames)])
    given = np.array([str(a.info.get(split_key, "")) for a in frames])
    return OwnData(name, _as_set(name, frames, columns, where), tuple(columns), labels, groups, given if given.any() else None)


def _check_request(properties, units, where) -> None:
    if not properties:
        raise ValueError("say what to learn: properties = \"band_gap\", or \"energy, forces\"")
    if not units or len(units) != len(properties):
        raise ValueError(f"{where}: give the unit of each of {', '.join(properties)} (units = \"...\", with commas, in that "
                         "order): no file says them reliably")
    for key in properties:
        if key in RESERVED or not re.fullmatch(r"\w+", key) and not re.fullmatch(r"[\w \-]+", key):
            raise ValueError(f"property {key!r} cannot be a name here: rename it with letters, digits and _")


def _value(atoms, key: str, where: str):
    """Label ``key`` from info, calculator results or per-atom arrays: a float or (N,3)."""
    results = atoms.calc.results if atoms.calc is not None else {}
    for place in (atoms.info, results, {k: v for k, v in atoms.arrays.items() if k not in ("positions", "numbers")}):
        if key in place and place[key] is not None:
            try:
                value = np.asarray(place[key], float)
            except (TypeError, ValueError):
                raise ValueError(f"{where}: '{key}' is {place[key]!r}, not a number") from None
            if value.shape not in ((), (len(atoms), 3)):
                raise ValueError(f"{where}: '{key}' has shape {value.shape}; a number or three per atom is needed")
            if not np.isfinite(value).all():
                raise ValueError(f"{where}: '{key}' holds NaN or infinity; leave this structure out or mend the label")
            return float(value) if value.ndim == 0 else value
    known = sorted({*atoms.info, *results, *atoms.arrays} - {"positions", "numbers"})
    raise ValueError(f"{where}: no '{key}' in it (there is: {', '.join(known) or 'nothing but geometry'}); set properties to "
                     "names that every structure has")


def _text(atoms, key: str, where: str) -> str:
    if key not in atoms.info:
        raise ValueError(f"{where}: no group '{key}' in it; set group_key to a name that every structure has")
    return str(atoms.info[key])


def _energies_and_forces(columns, vectors, units, where):
    """Columns under the names energy and forces, in eV and eV/Å."""
    scalars = [key for key in columns if key not in vectors]
    if len(vectors) != 1 or len(scalars) != 1:
        raise ValueError(f"{where}: forces are learnt together with one energy: set properties = \"energy, forces\" (here: "
                         f"{', '.join(columns)})")
    unit = dict(zip(columns, units))
    factor, force = energy_factor(unit[scalars[0]]), force_factor(unit[vectors[0]])
    made = {"energy": [v * factor for v in columns[scalars[0]]], "forces": [v * force for v in columns[vectors[0]]]}
    return made, ["eV", "eV/Å"]


def _check_values(key: str, values: list, where: str) -> None:
    spread = np.std(np.concatenate([np.ravel(v) for v in values]))
    if spread <= 1e-12 * max(1.0, float(np.abs(np.ravel(values[0])[0]))):
        raise ValueError(f"{where}: '{key}' is the same for all {len(values)} structures, so there is nothing to learn")


def _as_set(name, frames, columns, where) -> StructureSet:
    items = [from_ase(atoms, i) for i, atoms in enumerate(frames)]
    join = {key: np.concatenate([item[key] for item in items]) for key in ("pos", "atomic_numbers", "tags", "fixed")}
    forces = np.concatenate(columns["forces"]) if "forces" in columns else None
    return StructureSet.from_arrays(
        name, [len(a) for a in frames], **join, cell=np.stack([i["cell"] for i in items]),
        pbc=np.stack([i["pbc"] for i in items]), forces=forces, where=where,
        scalars={key: np.array(values) for key, values in columns.items() if key != "forces"})
