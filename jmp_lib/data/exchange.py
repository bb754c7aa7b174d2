"""Files of structures that others write, and pymatgen objects, as ``ase.Atoms``, and these as structures.

Units are eV, Å, eV/Å. Scalar targets and texts (``sid``, ``group``) come from ``info``. Pickles are never opened.
What has two meanings is refused: labels for species, shared or partly empty sites, tags that are no tags of OC20.
(Extended) XYZ is read here, since ASE's reader ends at a blank line without a word, takes ``CA`` for calcium and
ignores ``lattice=`` and ``PBC=``: what has one meaning is read, the rest refused by file, frame and line.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import re
import warnings
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.cell import Cell

from jmp_lib.data.door import DISORDERED, DTYPES, LARGEST, check_structure, number_of
from jmp_lib.data.formats import opened

# may run code; name atoms (CA), not elements
_REFUSED = (".pkl", ".pickle", ".npy", ".npz", ".pt", ".pth", ".traj", ".pdb", ".ent")
_KNOWN = "known are extended XYZ, ASE databases, CIF and POSCAR"
_ENDINGS = (".xz", ".gz", ".bz2")
_PACKED = {b"\xfd7zXZ": lzma.open, b"\x1f\x8b": gzip.open, b"BZh": bz2.open}
_ARCHIVES = {b"PK\x03\x04": "a zip archive or a table of Excel", b"\x28\xb5\x2f\xfd": "a Zstandard file",
             b"7z\xbc\xaf": "a 7z archive"}
_LONGEST = 1 << 20  # characters of a line

# What writers of XYZ call the same thing, in lower case
_HEADS = (dict.fromkeys(("lattice", "cell", "box", "unit_cell", "lattice_vectors", "cell_vectors", "tv"), "Lattice")
          | dict.fromkeys(("pbc", "periodic"), "pbc") | {"properties": "Properties"})  # fmt: skip
_COLUMNS = dict.fromkeys(("species", "symbol", "symbols", "element", "elements"), "symbols") | dict.fromkeys(
    ("z", "number", "numbers", "atomic_number", "atomic_numbers"), "numbers") | dict.fromkeys(
    ("pos", "position", "positions"), "positions") | {"charge": "initial_charges"}  # fmt: skip
_KINDS = {"R": float, "I": int, "S": str,
          "L": dict(zip(("T", "F", "True", "False", "1", "0"), (True, False) * 3)).__getitem__}
_WORD = r"(?:[TFtf]|[Tt]rue|[Ff]alse|TRUE|FALSE|[-+]?[\d.]+(?:[eE][-+]?\d+)?)"
_BARE = re.compile(rf"\b({'|'.join(_HEADS)})\s*=\s*({_WORD}(?:[\s,]+{_WORD})*)(?=\s|$)", re.IGNORECASE)


# --- texts and XYZ ---------------------------------------------------------------------------------------------


def read_lines(path: str | Path, *, mend: str) -> Iterator[str]:
    """Lines of a text, plain or compressed as its first bytes say, in UTF-8, UTF-16 or else Latin-1.

    Raises ``FileNotFoundError`` or ``ValueError`` (one sentence), also where the file turns out cut short or altered.
    """
    with opened(path, "a text", mend=mend):
        with open(path, "rb") as stream:
            head = stream.read(6)
        for magic, what in _ARCHIVES.items():
            if head.startswith(magic):
                raise ValueError(f"{path} is {what}: unpack it, or save it as text, first")
        opener = next((opener for magic, opener in _PACKED.items() if head.startswith(magic)), open)
        with opener(path, "rb") as stream:
            encoding = "utf-16" if stream.read(2) in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        with opener(path, "rt", encoding=encoding, errors="surrogateescape") as stream:
            while line := stream.readline(_LONGEST):
                if len(line) == _LONGEST:
                    raise ValueError(f"{path} has a line of more than {_LONGEST:,} characters, "
                                     f"so it is something else; {mend}")
                yield line if line.isascii() else _decoded(line)


def _decoded(line: str) -> str:
    raw = line.encode("utf-8", "surrogateescape")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def read_frames(path: str | Path, *, mend: str) -> Iterator[Atoms]:
    """Frames of an (extended) XYZ file, one in memory at a time; blank lines count nowhere, and the usual
    spellings of lattice, pbc, Properties, species and pos are read. Raises ``FileNotFoundError`` or
    ``ValueError``, one sentence."""
    lines = enumerate(read_lines(path, mend=mend), 1)
    for number, (at, head) in enumerate((at, line.strip()) for at, line in lines if line.strip()):
        where = f"{path}: frame {number}"
        if not (head.isascii() and head.isdigit()):
            before = f" (does frame {number - 1} have more atoms than it says?)" if number else ""
            raise ValueError(f"{where} begins with {head[:40]!r}, not with a number of atoms, "
                             f"in line {at}{before}; {mend}")
        natoms = int(head[:18])
        if not 0 < natoms <= LARGEST["natoms"]:
            raise ValueError(f"{where} says that it has {head[:40]} atoms, in line {at}: "
                             f"1 to {LARGEST['natoms']:,} are taken; {mend}")
        comment = next(lines, (0, ""))[1]
        rows = list(islice(((at, line.split()) for at, line in lines if not line.isspace()), natoms))
        if len(rows) < natoms:
            raise ValueError(f"{where} ends after {len(rows)} of {natoms} atoms; {mend}")
        try:
            yield _frame_of(comment, rows, where)
        except ValueError as error:
            said = str(error) if str(error).startswith(where) else f"{where} is not extended XYZ ({error})"
            raise ValueError(f"{' '.join(said.split())}; {mend}") from None  # numpy prints long arrays in several lines
        except Exception as error:  # ASE raises many kinds for text that is not its format
            raise ValueError(f"{where} is not extended XYZ ({error}); {mend}") from None


def _frame_of(comment: str, rows: list[tuple[int, list[str]]], where: str) -> Atoms:
    """The Atoms of a comment line and the words of each atom's line, with its number in the file."""
    from ase.constraints import FixAtoms, FixCartesian
    from ase.io.extxyz import set_calc_and_arrays

    info = _comment(comment, where)
    fields = str(info.pop("Properties", "species:S:1:pos:R:3")).split(":")
    columns = list(zip(fields[::3], fields[1::3], map(int, fields[2::3])))
    if len(fields) % 3 or any(kind not in _KINDS or width < 1 for _, kind, width in columns):
        raise ValueError(f"{where} has Properties={':'.join(fields)!r}, which are not NAME:TYPE:COLUMNS, ...")
    needed = sum(width for *_, width in columns)
    for at, words in rows:
        if len(words) < needed or (len(words) > needed and "Properties" in comment):
            raise ValueError(f"{where}, line {at}: {' '.join(words)[:60]!r} has {len(words)} columns where {needed} "
                             "are needed (is the number of atoms right?)")  # fmt: skip
    arrays, first = {}, 0
    for name, kind, width in columns:
        name = _COLUMNS.get(name.lower(), name)
        if name in arrays:
            raise ValueError(f"{where} has two columns {name!r}")
        convert = number_of if name in ("symbols", "numbers") else _KINDS[kind]
        found = []
        for at, words in rows:
            try:
                found.append([convert(word) for word in words[first:first + width]])
            except (ValueError, KeyError) as error:
                said = error if convert is number_of else f"{' '.join(words[first:first + width])!r} is no {name}"
                raise ValueError(f"{where}, line {at}: {said}") from None
        arrays[name] = np.array(found)[:, 0] if width == 1 else np.array(found)
        first += width
    numbers = arrays.pop("symbols", arrays.get("numbers"))
    if numbers is None or "positions" not in arrays or not np.array_equal(numbers, arrays.pop("numbers", numbers)):
        raise ValueError(f"{where}: its Properties must name species (or Z, the same elements) and pos")
    cell, pbc = info.pop("Lattice", None), info.pop("pbc", None)
    atoms = Atoms(numbers, arrays.pop("positions"), cell=cell, pbc=cell is not None if pbc is None else pbc,
                  charges=arrays.pop("initial_charges", None), info=info)  # fmt: skip
    if "move_mask" in arrays:
        moves = arrays.pop("move_mask").astype(bool)
        atoms.set_constraint(FixAtoms(mask=~moves) if moves.ndim == 1
                             else [FixCartesian(i, ~row) for i, row in enumerate(moves)])
    set_calc_and_arrays(atoms, arrays)
    return atoms


def _comment(text: str, where: str) -> dict:
    """Keys and values of a comment line; ``Lattice`` (3,3) Å, ``pbc`` and ``Properties`` under these names,
    however spelled."""
    from ase.io.extxyz import key_val_str_to_dict

    text = _BARE.sub(lambda m: m[0] if text.count('"', 0, m.start()) % 2 else f'{m[1]}="{m[2]}"', text)
    info = key_val_str_to_dict(re.sub(r"\bLattice(?=\s*=)", "lattice", text)) if text.strip() else {}
    if isinstance(info.get("id"), np.floating):  # an id keeps its digits
        info["id"] = re.search(r"(?:^|\s)id\s*=\s*[\"']?([^\s\"']+)", text)[1]
    for key in [key for key in info if key.lower() in _HEADS]:
        value, name = info.pop(key), _HEADS[key.lower()]
        if name == "Lattice":
            values = np.ravel(value)
            if values.dtype.kind not in "if" or values.size not in (3, 6, 9):
                raise ValueError(f'{where}: {key}={value!r} is no lattice; '
                                 'write Lattice="ax ay az bx by bz cx cy cz" in Å')
            value = Cell.new(values if values.size < 9 else values.reshape(3, 3)).array
        elif name == "pbc":
            words = re.findall(r"true|false|[tf01](?![\d.])", " ".join(map(str, np.ravel(value))).lower())
            if (len(words) not in (1, 3)
                    or len("".join(words)) != len(re.sub(r"[\s,]", "", "".join(map(str, np.ravel(value)))))):
                raise ValueError(f'{where}: {key}={value!r} does not say in which directions it is '
                                 'periodic; write pbc="T T F"')
            value = [word[0] in "t1" for word in words] * (3 // len(words))
        if name in info and not np.array_equal(info[name], value):
            raise ValueError(f"{where} says {name} twice, differently; leave one out")
        info[name] = value
    return info


# --- other files -----------------------------------------------------------------------------------------------


def _rows_of(path: Path) -> Iterator[Atoms]:
    """Rows of an ASE database; what its ``data`` and key-value pairs hold is in ``info``."""
    from ase.db import connect

    kind, magic = ("json", b"{") if path.suffix.lower() == ".json" else ("db", b"SQLite format 3\0")
    with opened(path, f"an ASE database ({path.suffix})", magic, mend=_KNOWN):
        for row in connect(path, type=kind, use_lock_file=False).select(sort="id"):
            atoms = row.toatoms()
            atoms.info.update({**row.data, **row.key_value_pairs})
            yield atoms


def _of_cif(path: Path) -> Iterator[Atoms]:
    """Structures of a CIF, as ASE makes them; ``ValueError`` names a site that is shared,
    partly empty or of no element."""
    from ase.io.cif import parse_cif

    text = io.StringIO("".join(read_lines(path, mend=_KNOWN)))
    with opened(path, "a CIF", mend=_KNOWN), warnings.catch_warnings():
        warnings.filterwarnings("error", message="Wrong number")  # ASE leaves out such an atom
        for block in parse_cif(text):
            if not block.has_structure():
                continue
            labels = block.get("_atom_site_label") or block["_atom_site_type_symbol"]
            shares = block.get("_atom_site_occupancy") or [1] * len(labels)
            for label, symbol, share in zip(labels, block.get("_atom_site_type_symbol") or labels, shares):
                try:
                    number_of(re.match(r"[A-Za-z]*", str(symbol))[0])
                except ValueError as error:
                    raise ValueError(f"{path}: data_{block.name}, site {label}: {error}") from None
                if isinstance(share, (int, float)) and abs(share - 1) > 1e-3:
                    raise ValueError(f"{path}: data_{block.name}, {DISORDERED.format(f'{label} (occupancy {share})')}")
            sites = block.get_unsymmetrized_structure()
            sites.pbc = sites.cell.rank == 3
            check_structure(from_ase(sites), f"{path}: data_{block.name}, sites")
            yield block.get_atoms(fractional_occupancies=False)


def iter_atoms(path: Path) -> Iterator[Atoms]:
    """The frames of a file: (extended) XYZ, an ASE database (its data and key-value pairs in ``info``) and CIF, one
    in memory at a time; POSCAR, what else ASE reads.

    Raises ``FileNotFoundError`` or ``ValueError`` with one sentence naming the file.
    """
    ending = ending_of(path)
    if ending in _REFUSED:
        raise ValueError(f"{path}: {ending} files are not read (they may run code or lack meaning); write extended XYZ "
                         "with ase.io.write('mine.extxyz', frames)")
    if ending in (".xyz", ".extxyz") or (ending == "" and not is_poscar(path) and _counts_atoms(path)):
        frames = read_frames(path, mend=_KNOWN)
    elif ending in (".db", ".json"):
        frames = _rows_of(path)
    elif ending == ".cif":
        frames = _of_cif(path)
    else:
        from ase.io import read

        vasp = ending in (".poscar", ".vasp") or is_poscar(path)
        with opened(path, "a file of structures", mend=_KNOWN):
            if vasp:
                _check_counts(path)
            try:
                frames = read(path, index=":", format="vasp" if vasp else None)
            except KeyError as error:  # a symbol that ASE does not know
                number_of(str(error.args[0]))
                raise
    empty = True
    for atoms in frames:
        empty = False
        yield atoms
    if empty:
        raise ValueError(f"{path} holds no structure; {_KNOWN}")


def _counts_atoms(path: Path) -> bool:
    """Whether the first line with something in it is a number, as in XYZ; OUTCAR and XDATCAR have no ending either."""
    first = next((line.strip() for line in read_lines(path, mend=_KNOWN) if line.strip()), "")
    return re.fullmatch(r"[-+]?[\d.]+", first) is not None


def _check_counts(path: Path) -> None:
    """``ValueError`` for a POSCAR that says that it has more atoms than lines: ASE takes memory for what it says."""
    lines = list(read_lines(path, mend=_KNOWN))
    for line in lines[5:7]:  # of which the second has the numbers where the first has the elements
        stated = sum(int(word) for word in line.split() if word.isdigit())
        if stated > len(lines):
            raise ValueError(f"{path} says that it has {stated} atoms, in {len(lines)} lines; {_KNOWN}")


def ending_of(path: Path) -> str:
    """Ending in lower case, below that of a compressed file: ``.cif`` of ``A.CIF.gz``."""
    return ([""] + [suffix.lower() for suffix in path.suffixes if suffix.lower() not in _ENDINGS])[-1]


def is_poscar(path: Path) -> bool:
    """Whether the name says that this is a POSCAR or CONTCAR, which have no ending."""
    return path.name.upper().startswith(("POSCAR", "CONTCAR"))


# --- objects ---------------------------------------------------------------------------------------------------


def to_atoms(item, where: str) -> Atoms:
    """A copy of an ``ase.Atoms`` (with its results), or the Atoms of a pymatgen Structure or Molecule;
    else ``ValueError``."""
    if isinstance(item, Atoms):
        made = item.copy()
        if results := getattr(item.calc, "results", None):
            made.calc = SinglePointCalculator(made)
            made.calc.results.update(results)  # those of other codes have names that ASE does not take
        return made
    if not (hasattr(item, "sites") and hasattr(item, "composition")):
        raise ValueError(f"{where} is a {type(item).__name__}, not an ase.Atoms or a pymatgen structure")
    numbers = []
    for place, site in enumerate(item.sites):
        (element, share), *others = site.species.items()
        if others or abs(share - 1) > 1e-3:
            raise ValueError(f"{where}: {DISORDERED.format(f'{place} ({site.species_string})')}")
        try:
            # D has symbol H
            numbers.append(number_of(getattr(getattr(element, "element", element), "value", element.symbol)))
        except ValueError as error:
            raise ValueError(f"{where}: site {place}: {error}") from None
    lattice = getattr(item, "lattice", None)
    return Atoms(numbers, item.cart_coords, cell=lattice and lattice.matrix, pbc=lattice and lattice.pbc)


def from_ase(atoms: Atoms, number: int = 0, where: str = "the structure") -> dict:
    """The structure of an ``ase.Atoms``; ``number`` is its id when ``info`` has none that is a number.

    Tags that are all 0, as ASE's builders give them, are none: 2. Raises ``ValueError`` naming ``where`` for shared or
    partly empty sites and for tags that cannot be those of a slab: 0 must lie below 1 and 2.
    """
    fixed = np.zeros(len(atoms), dtype=bool)
    for constraint in atoms.constraints:
        if type(constraint).__name__ == "FixAtoms":
            fixed[constraint.index] = True
    shared = atoms.info.get("occupancy")  # as ASE's reader of CIF leaves it
    for site, shares in shared.items() if isinstance(shared, Mapping) else ():
        if len(shares) != 1 or abs(sum(shares.values()) - 1) > 1e-3:
            raise ValueError(f"{where}: {DISORDERED.format(f'{site} ({shares})')}")
    structure = {
        "pos": atoms.positions.astype(np.float32),
        "atomic_numbers": atoms.numbers.astype(np.int64),
        "cell": _whole_cell(atoms),
        "pbc": np.array(atoms.pbc),
        "tags": _tags(atoms, where),
        "fixed": fixed,
        "id": number,
    }
    for key in ("energy", "forces"):
        value = getattr(atoms.calc, "results", {}).get(key)
        if value is not None:
            try:
                value = np.asarray(value, np.float64)
            except (TypeError, ValueError):
                raise ValueError(f"{where}: its {key} {str(value)[:40]!r} is no number; "
                                 "mend it or leave it out") from None
            structure[key] = (value.astype(np.float32) if key == "forces" else float(value.item())
                              if value.size == 1 else value)
    for key, value in atoms.info.items():
        plain = not isinstance(value, (list, tuple, Mapping)) and np.ndim(value) == 0
        kind = np.asarray(value).dtype.kind if plain else "several"
        if key == "id":
            if kind in ("i", "u") and 0 <= value < 2**62:
                structure["id"] = int(value)
            elif value is not None and kind != "b":
                text = value.tolist() if hasattr(value, "tolist") else value
                structure["sid"] = text if isinstance(text, str) else json.dumps(text, default=str)
        elif isinstance(value, str):
            structure.setdefault(key, value)
        elif kind in ("i", "u", "f") and key not in DTYPES:
            structure.setdefault(key, float(value))
    return structure


def _whole_cell(atoms: Atoms) -> np.ndarray:
    """The cell (3,3) Å; a vector that builders of chains and sheets leave at zero, where nothing repeats,
    is given a length."""
    cell, missing = np.array(atoms.cell, dtype=np.float64), ~atoms.cell.array.any(axis=1)
    if not atoms.pbc.any() or not missing.any() or (missing & atoms.pbc).any():
        return cell
    return np.where(missing[:, None], atoms.cell.complete().array * (20.0 + 2.0 * np.ptp(atoms.positions)), cell)


def _tags(atoms: Atoms, where: str) -> np.ndarray:
    """Tags (N,) int64 as OC20 has them. Its 0, below the surface, decides what the network sees;
    other tags are refused."""
    tags = atoms.arrays.get("tags", np.full(len(atoms), 2))
    if tags.dtype.kind not in "iufb":
        raise ValueError(f"{where}: its tags are {tags.dtype}, not numbers; leave them out")
    if not tags.any():
        return np.full(len(atoms), 2)
    below = tags == 0
    if below.any():
        lies = atoms.cell.rank == 3 and atoms.pbc.any()
        if lies:
            height = np.sort(atoms.get_scaled_positions(wrap=True)[:, 2])
            gaps = np.diff(height, append=height[0] + 1)
            height = (atoms.get_scaled_positions(wrap=False)[:, 2]
                      - height[(gaps.argmax() + 1) % len(height)] + 1e-6) % 1
            lies = height[below].mean() < height[~below].mean()
        if not lies:
            raise ValueError(f"{where}: its tags are not those of OC20 (0 below the surface of a slab, 1 surface, "
                             "2 adsorbate), but layers of a builder or marks of your own; set them so, "
                             "or atoms.set_tags(2) for none")  # fmt: skip
    return tags if tags.dtype.kind == "f" and (tags % 1 != 0).any() else tags.astype(np.int64)
