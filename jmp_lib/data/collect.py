"""From what a file holds to structures and sets: one structure, what is wrong with it, many into columns.

Readers and writers pass structures on as dicts of numpy arrays with the fields of
:class:`~jmp_lib.data.structures.Structure`; cell, pbc, tags and fixed may be missing where they are the default.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache

import numpy as np
from ase.data import atomic_numbers as _NUMBER_OF
from ase.data import chemical_symbols
from ase.formula import Formula

from jmp_lib.data.door import DEFAULTS, DTYPES, MAX_ATOMIC_NUMBER, PER_ATOM, check
from jmp_lib.data.structures import StructureSet

_NO_SCALARS = (*DTYPES, "id", "fid", "name")  # fields of a structure that are no scalar labels


def labels_of(structure: Mapping) -> list[str]:
    """What a structure has beside its geometry, as names of columns, sorted: ``forces``, ``scalar NAME``, ``text NAME``.

    Raises ``ValueError`` for a field that no column can hold.
    """
    found = ["forces"] if "forces" in structure else []
    for key in structure.keys():
        value = structure[key]
        if isinstance(value, str):
            found.append(f"text {key}")
        elif key not in _NO_SCALARS:
            if np.ndim(value) or np.asarray(value).dtype.kind not in "iufb":
                raise ValueError(f"field {key!r} is neither a number nor a text")
            found.append(f"scalar {key}")
    return sorted(found)


@cache
def number_of(symbol: str) -> int:
    """Atomic number of an element symbol (``O``, ``cl``) or of a number as text (``8``); else ``ValueError`` that says why."""
    text = str(symbol).strip()
    if text.isascii() and text.isdigit():
        number = int(text[:9])
    else:
        number = _NUMBER_OF.get(text.capitalize() if text.islower() else text, 0)
    if 1 <= number <= MAX_ATOMIC_NUMBER:
        return number
    if text.upper() in ("D", "T"):
        raise ValueError(f"unknown element {symbol!r}: heavy hydrogen is not told from H, write H (the mass changes no energy "
                         "and no force)")  # fmt: skip
    raise ValueError(f"unknown element {symbol!r} (a label, a dummy atom?); write a symbol, as C or Cl, or an atomic number")


def numbers_of(symbols: Iterable) -> np.ndarray:
    """Atomic numbers int64 (N,) of element symbols; raises as :func:`number_of`."""
    return np.array([number_of(str(symbol)) for symbol in symbols], dtype=np.int64)


def hill(atomic_numbers) -> str:
    """Formula of atoms in Hill's order: C2H6O."""
    return Formula.from_list([chemical_symbols[number] for number in atomic_numbers]).format("hill")


DISORDERED = "site {} is shared by several elements or partly empty, and a network needs one at each; give an ordered structure"


def numbers_of_sites(sites: Sequence[Mapping]) -> np.ndarray:
    """Atomic numbers int64 (N,) of the sites of a pymatgen structure in JSON (charges do not count); ``ValueError`` names one
    that is shared, partly empty or of no element."""
    numbers = []
    for place, site in enumerate(sites):
        (species, *others), label = site.get("species") or [{"element": site["label"]}], site.get("label", "")
        if others or abs(species.get("occu", 1) - 1) > 1e-3:
            raise ValueError(DISORDERED.format(f"{place} ({label or species['element']})"))
        try:
            numbers.append(number_of(re.sub(r"[\d+\-.]+$", "", species["element"])))
        except ValueError as error:
            raise ValueError(f"site {place}: {error}") from None
    return np.array(numbers, dtype=np.int64)


def make_structure(pos, atomic_numbers, id, *, cell=None, forces=None, sid=None, group=None, **scalars) -> dict:
    """A structure dict (fields of ``Structure``) of one molecule, or of one crystal when ``cell`` (3,3) Å is given.

    pos (N,3) Å; atomic_numbers (N,); forces (N,3) eV/Å; scalars: labels in their task's unit; sid, group: names the
    source has. Every atom gets tag 2 and none is fixed. :func:`screened` checks what is made.
    """
    numbers = np.asarray(atomic_numbers)
    made = {
        "pos": np.asarray(pos, dtype=np.float32),
        "atomic_numbers": numbers.astype(np.int64),
        "cell": np.zeros((3, 3)) if cell is None else np.asarray(cell, dtype=np.float64),
        "pbc": np.full(3, cell is not None),
        "tags": np.full(numbers.size, 2, dtype=np.int64),
        "fixed": np.zeros(numbers.size, dtype=bool),
        "id": int(id),
    }
    if forces is not None:
        made["forces"] = np.asarray(forces, dtype=np.float32)
    made |= {key: np.float64(value) for key, value in scalars.items()}
    made |= {key: str(value) for key, value in (("sid", sid), ("group", group)) if value is not None}
    return made


def check_structure(structure: Mapping, where: str) -> None:
    """Raise ``ValueError`` (one sentence: where, field, what is wrong) for a structure no training may see; see
    :func:`jmp_lib.data.door.check`."""
    missing = [key for key in ("pos", "atomic_numbers") if key not in structure]
    if missing:
        raise ValueError(f"{where}: field {missing[0]!r} is missing")
    texts = ("id", "sid", "group")
    found = {key: np.asarray(structure[key]) for key in structure.keys() if key not in texts and not isinstance(structure[key], str)}
    columns = {key: array if key in PER_ATOM else array[None] for key, array in found.items()}
    check(where, {"natoms": np.array([found["atomic_numbers"].size]), **columns}, one=True)


def refuse(reason: str, rejected: list[str] | None) -> None:
    """Note ``reason`` (with where it is from) in ``rejected``; without a list raise it as ``ValueError``."""
    if rejected is None:
        raise ValueError(reason) from None
    rejected.append(reason)


def screened(items: Iterable[tuple[str, Callable[[], dict]]], where: str,
             rejected: list[str] | None = None) -> Iterator[dict]:
    """The sound structures among those that ``items``, pairs (name, function that makes the structure), give.

    The reason why one cannot be made or fails :func:`check_structure` goes to
    ``rejected``; without such a list it is a ``ValueError``. It names ``where`` and the structure.
    """
    for name, make in items:
        at = f"{where}: {name}"
        try:
            structure = make()
            check_structure(structure, at)
        except ValueError as error:
            refuse(str(error) if str(error).startswith(at) else f"{at}: {error}; leave it out or mend it", rejected)
        except (LookupError, TypeError, AttributeError, ArithmeticError) as error:
            refuse(f"{at}: it cannot be read ({error!r}); leave it out or mend it", rejected)
        else:
            yield structure


def pack(structures: Sequence[Mapping], labels: list[str]) -> dict[str, np.ndarray | list[str]]:
    """Columns of structures that passed :func:`check_structure` and all have ``labels``, which name columns too.

    Other keys as of :class:`~jmp_lib.data.structures.Columns` (group and ids excepted).
    """
    natoms = np.array([len(s["atomic_numbers"]) for s in structures])

    def column(key: str) -> np.ndarray | list[str]:
        kind, _, name = key.rpartition(" ")
        if kind:
            return [s[name] for s in structures] if kind == "text" else np.array([float(s[name]) for s in structures])
        shape = PER_ATOM.get(key, (3, 3) if key == "cell" else (3,))
        values = [np.asarray(s[key]) if key in s else _default(key, s, n, shape) for s, n in zip(structures, natoms)]
        return (np.concatenate if key in PER_ATOM else np.stack)(values).astype(DTYPES[key], copy=False)

    return {"natoms": natoms} | {key: column(key) for key in ("pos", "atomic_numbers", "cell", "pbc", "tags", "fixed", *labels)}


def _default(key: str, structure: Mapping, natoms: int, shape: tuple[int, ...]) -> np.ndarray:
    value = bool(np.asarray(structure["cell"]).any()) if key == "pbc" and "cell" in structure else DEFAULTS[key]
    return np.full((natoms, *shape) if key in PER_ATOM else shape, value)


def to_set(name: str, structures: Iterable[Mapping], description: str = "", where: str = "") -> StructureSet:
    """A set in memory of the structures, all with the same labels; text ``group`` becomes the group.

    Raises ``ValueError`` when there are none, when labels differ, and as :func:`~jmp_lib.data.door.check`.
    """
    found = list(structures)
    if not found:
        raise ValueError(f"{where or name}: there is no structure in it")
    for structure in found:
        if differing := sorted(set(structure.keys()) ^ set(found[0].keys())):
            raise ValueError(f"{where or name}: structure {structure['id']} differs in {', '.join(differing)}")
    columns = pack(found, labels_of(found[0]))
    texts = {key.removeprefix("text "): columns.pop(key) for key in list(columns) if key.startswith("text ")}
    scalars = {key.removeprefix("scalar "): columns.pop(key) for key in list(columns) if key.startswith("scalar ")}
    if not columns["pbc"].any():
        del columns["cell"]
    group_names, group = np.unique(texts.pop("group"), return_inverse=True) if "group" in texts else (None, None)
    ids = np.array([int(s["id"]) for s in found])
    return StructureSet.from_arrays(name, **columns, description=description, scalars=scalars, group=group,
                                    group_names=group_names, ids=ids, texts=texts, where=where)
