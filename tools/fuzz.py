"""Fuzzing of the readers: valid small files of every format, damaged, must be read or refused in one sentence.

    python -m tools.fuzz --inputs 20000

Each input is read in a worker process with limits of memory and time, published formats as ``data prepare``
does, others as own data. Prints a table of what became of them. Good are ``read`` and ``refused`` (one sentence
that names the file); the other columns are faults: a sentence without the file's name (``no file``), another
exception (``traceback``), a process that died or found no end (``end``), more memory than the limit
(``memory``), fewer structures or atoms than the file holds without a word (``lost``), NaN or infinity in what
was read (``nonsense``). Inputs with faults are kept. Exit code 1 with any.
"""

from __future__ import annotations

import argparse
import gzip
import importlib
import io
import json
import lzma
import multiprocessing
import pickle
import re
import resource
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import h5py
import lmdb
import numpy as np
import pandas as pd
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.db import connect
from ase.io import write
from torch_geometric.data import Data

from jmp_lib.data import qm9, rmd17, spice, transition1x
from jmp_lib.data.door import check_structure, make_structure
from jmp_lib.data.exchange import from_ase, iter_atoms
from jmp_lib.data.formats import whole_set
from jmp_lib.data.pretraining import read_part
from jmp_lib.data.tasks import PRETRAINING_SETS
from jmp_lib.own.data import read_own

MEMORY, SECONDS = 1 << 30, 20.0  # a worker may take beyond what it has, and an input may take
GROWTH = 256 << 20  # bytes that reading one input (of some 10 kB) may add to what a worker has ever held
GOOD = ("read", "refused")
BAD = ("no file", "traceback", "end", "memory", "lost", "nonsense")

# --- formats: from bytes to dictionaries, lists, arrays and values, and back ---------------------------------


def npz_of(arrays: dict) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def h5_of(tree: dict) -> bytes:
    def fill(group, tree: dict) -> None:
        for key, value in tree.items():
            if isinstance(value, dict):
                fill(group.create_group(key), value)
            else:
                array = np.asarray(value)
                group[key] = (repr(value) if array.dtype.kind == "O" else array.astype("S")
                              if array.dtype.kind == "U" else array)

    out = io.BytesIO()
    with h5py.File(out, "w") as file:
        fill(file, tree)
    return out.getvalue()


def of_h5(group) -> dict:
    return {key: of_h5(node) if isinstance(node, h5py.Group) else node[()] for key, node in group.items()}


def lmdb_of(graphs: list) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graphs.lmdb"
        with (lmdb.open(str(path), subdir=False, map_size=1 << 20, lock=False) as base,
              base.begin(write=True) as transaction):
            for number, fields in enumerate(graphs):
                transaction.put(str(number).encode(), pickle.dumps(graph(fields)))
            transaction.put(b"length", pickle.dumps(len(graphs)))
        return path.read_bytes()


def of_lmdb(data: bytes) -> list:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graphs.lmdb"
        path.write_bytes(data)
        with lmdb.open(str(path), subdir=False, readonly=True, lock=False) as base, base.begin() as transaction:
            return [pickle.loads(value).to_dict() for key, value in transaction.cursor() if key != b"length"]


def graph(fields):
    return Data(**fields) if isinstance(fields, dict) else fields


FORMS = {  # ending -> what reads, and what writes
    ".json": (json.loads, lambda tree: json.dumps(tree).replace("NaN", "1e999").encode()),
    ".npz": (lambda data: dict(np.load(io.BytesIO(data))), npz_of),
    ".h5": (lambda data: of_h5(h5py.File(io.BytesIO(data))), h5_of),
    ".pkl": (lambda data: [one.to_dict() for one in pickle.loads(data)],
             lambda graphs: pickle.dumps(list(map(graph, graphs)))),
    ".lmdb": (of_lmdb, lmdb_of),
}
TEXTS = (".extxyz", ".txt", ".csv", ".cif", ".json", "")

# --- valid inputs --------------------------------------------------------------------------------------------


@dataclass
class Kind:
    """A valid input. files: name -> bytes; the first is given to the reader; dataset: its file in jmp_lib.data, else
    "own" (a file of labelled structures), "one" (a single structure) or "folder"; count, atoms: what is in it."""

    name: str
    dataset: str
    files: dict[str, bytes]
    count: int
    atoms: int


def molecule(rng, symbols=("C", "H", "O", "H", "H", "H"), periodic=False) -> Atoms:
    places = 1.3 * np.array([(i % 3, i // 3 % 3, i // 9) for i in range(len(symbols))], float)
    places += rng.normal(0, 0.05, places.shape)
    atoms = Atoms(symbols, places, cell=[5, 6, 30] if periodic else None, pbc=periodic)
    atoms.calc = SinglePointCalculator(atoms, energy=float(rng.normal()), forces=rng.normal(size=places.shape))
    return atoms


def slab(rng) -> Atoms:
    atoms = molecule(rng, ["Cu"] * 4 + ["O", "H"], True)
    atoms.set_tags([0, 1, 0, 1, 2, 2])
    atoms.set_constraint(FixAtoms([0, 2]))
    return atoms


def extxyz(frames: list[Atoms]) -> bytes:
    text = io.StringIO()
    write(text, frames, format="extxyz")
    return text.getvalue().encode()


def kinds(folder: Path) -> list[Kind]:
    """A valid input of each format; libraries that want a path write to ``folder``."""
    rng = np.random.default_rng(7)

    def kept(name: str) -> dict[str, bytes]:
        return {name: (folder / name).read_bytes()}

    def positions(*shape):
        return 30 * rng.normal(size=(*shape, 3))

    md22 = {"z": np.tile([6, 1, 7, 8, 1, 1], 7), "R": positions(3, 42), "E": rng.normal(size=(3, 1)),
            "F": positions(3, 42), "e_unit": np.array("kcal/mol"), "md5": np.array(b"566c")}  # fmt: skip
    ethanol = {"nuclear_charges": Atoms(rmd17.FORMULAS["ethanol"]).numbers, "coords": positions(3, 9),
               "energies": rng.normal(size=3), "forces": rng.normal(size=(3, 9, 3)),
               "old_indices": np.arange(3)}  # fmt: skip
    properties = rng.normal(size=(12, 4))
    waters = {"id": np.arange(1, 5), "N": np.full(4, 3, np.int8),
              "R": positions(12), "Z": np.tile([8, 1, 1], 4).astype(np.uint8),
              **dict(zip((key for key, _ in qm9.TARGETS.values()), properties))}  # fmt: skip
    water = {"pos": torch.rand(3, 3), "z": torch.tensor([8, 1, 1]), "y": torch.rand(1, 19)}
    torch.save([{**water, "name": f"gdb_{i}"} for i in range(3)], folder / "qm9_v3.pt")
    oxides = {"qmof_id": np.array([f"qmof-{i}" for i in range(3)]), "natoms": np.full(3, 2),
              "bandgap_pbe": np.arange(3) * 0.1, "cellpar": np.tile([5.0, 6, 7, 90, 80, 70], (3, 1)),
              "Z": np.tile([30, 8], 3), "frac": np.tile([[0, 0, 0], [0.3, 0.5, 0.5]], (3, 1))}  # fmt: skip
    sites = [{"label": s, "species": [{"element": s, "occu": 1}], "abc": [x] * 3, "xyz": [4 * x, 5 * x, 6 * x]}
             for s, x in (("Zn", 0.0), ("O", 0.5))]  # fmt: skip
    crystal = {"lattice": {"matrix": np.diag([4.0, 5, 6]).tolist()}, "sites": sites}
    gaps = [{"qmof_id": f"qmof-{i}", "info": {"natoms": 2}, "outputs": {"pbe": {"bandgap": 0.1 * i}}} for i in range(3)]
    structures = [{"qmof_id": f"qmof-{i}", "structure": crystal} for i in range(3)]
    rows = {"index": [0, 7, "mb-phonons-0009"], "columns": ["structure", "last phdos peak"],
            "data": [[crystal, 100.0 + i] for i in range(3)]}  # fmt: skip

    def methanes(names, **more):
        values = [np.array([6, 1, 1, 1]), positions(3, 4), rng.normal(size=3), rng.normal(size=(3, 4, 3))]
        return dict(zip(("atomic_numbers", *names), values)) | more

    ani = {f"C{i}H4": methanes(("coordinates", "wb97x_dz.energy", "wb97x_dz.forces")) for i in "12"}
    reactions = {f"rxn{i:04d}": methanes(("positions", transition1x.ENERGY, transition1x.FORCES)) for i in range(2)}
    said = {"subset": [(spice.SUBSETS["dipeptides"] + " v1.3").encode()], "formation_energy": rng.normal(size=3)}
    dipeptides = {f"ala-{i}": methanes(("conformations", "dft_total_energy", "dft_total_gradient"), **said)
                  for i in range(2)}

    images = [slab(rng) for _ in range(3)]
    relaxation = {"0.extxyz": extxyz(images),
                  "0.txt": "".join(f"random77,frame{i},{-28.5 - i}\n" for i in range(3)).encode()}
    graphs = [{"pos": torch.tensor(a.positions, dtype=torch.float32), "cell": torch.tensor(a.cell.array[None]),
               "natoms": 6, "atomic_numbers": torch.tensor(a.numbers, dtype=torch.float32),
               "tags": torch.tensor(a.get_tags()), "sid": 77,
               "fid": i, "fixed": torch.tensor([1.0, 0, 1, 0, 0, 0]), "y": float(i), "force": torch.rand(6, 3)}
              for i, a in enumerate(images)]  # fmt: skip
    mine = [molecule(rng, periodic=i % 2 == 0) for i in range(10)]
    with connect(folder / "mine.db", append=False) as base:
        for i, atoms in enumerate(mine):
            atoms.info["gap"] = 0.1 * i
            base.write(atoms, gap=atoms.info["gap"])
    salts = [molecule(rng, ["Na", "Cl"], True) for _ in range(10)]
    for i, atoms in enumerate(salts):
        write(folder / f"c{i}.cif", atoms)
    write(folder / "POSCAR", salts[0])
    labels = ("name,gap\n" + "".join(f"c{i},{0.1 * i}\n" for i in range(10))).encode()
    lists = {"qmof.json": json.dumps(gaps).encode(), "qmof_structure_data.json": json.dumps(structures).encode()}
    own_folder = {"labels.csv": labels} | {f"cifs/c{i}.cif": (folder / f"c{i}.cif").read_bytes() for i in range(10)}
    return [
        Kind("md22.npz", "md22", {"md22_Ac-Ala3-NHMe.npz": npz_of(md22)}, 3, 126),
        Kind("rmd17.npz", "rmd17", {"rmd17_ethanol.npz": npz_of(ethanol)}, 3, 27),
        Kind("qm9.npz", "qm9", {"qm9_parts.npz": npz_of(waters)}, 4, 12),
        Kind("qm9.pt", "qm9", kept("qm9_v3.pt"), 3, 9),
        Kind("qmof.npz", "qmof", {"qmof_parts.npz": npz_of(oxides)}, 3, 6),
        Kind("qmof.json", "qmof", lists, 3, 6),
        Kind("matbench", "matbench", {"matbench_phonons.json.gz": gzip.compress(json.dumps(rows).encode())}, 3, 6),
        Kind("ani1x", "ani1x", {"ani1x-release.h5": h5_of(ani)}, 6, 24),
        Kind("transition1x", "transition1x", {"Transition1x.h5": h5_of({"data": {"C1H3": reactions}})}, 6, 24),
        Kind("spice", "spice", {"SPICE-1.1.4.hdf5": h5_of(dipeptides)}, 6, 24),
        Kind("oc20.extxyz", "oc20", relaxation, 3, 18),
        Kind("oc20.xz", "oc20", {f"{key}.xz": lzma.compress(data) for key, data in relaxation.items()}, 3, 18),
        Kind("oc20.lmdb", "oc20", {"a.lmdb": lmdb_of(graphs)}, 3, 18),
        Kind("oc22.pkl", "oc22", {"a.pkl": FORMS[".pkl"][1](graphs)}, 3, 18),
        Kind("own.extxyz", "own", {"mine.extxyz": extxyz(mine)}, 10, 60),
        Kind("own.db", "own", kept("mine.db"), 10, 60),
        Kind("cif", "one", kept("c0.cif"), 1, 2),
        Kind("poscar", "one", kept("POSCAR"), 1, 2),
        Kind("folder", "folder", own_folder, 10, 20),
    ]  # fmt: skip


# --- damage --------------------------------------------------------------------------------------------------

WORDS = ["nan", "inf", "-1", "0", "1e308", "1e999", "99999999999", "9223372036854775808", "abc",
         "", '"', "0.5", "2", "[", "é"]
NODES = [None, True, -1, 0, 1e308, 10**400, "abc", "", [], {}, [[]], {"a": 1}, "nan", 99999999999]


def odd(rng, like):
    """What is not expected in the place of a value or an array."""
    if not isinstance(like, (np.ndarray, torch.Tensor)) or rng.random() < 0.2:
        return NODES[rng.integers(len(NODES))]
    array = np.asarray(like)
    number = array if array.dtype.kind in "iufb" else np.zeros(3)
    spoilt = np.array(number, dtype=np.float64)
    if spoilt.size:
        spoilt.reshape(-1)[rng.integers(spoilt.size)] = [np.nan, np.inf, 1e300, -1e9, -1][rng.integers(5)]
    made = [
        spoilt, spoilt, number.reshape(-1)[:-1], number[None], np.array("text"), np.array(["a", "b"]), np.zeros((0, 3)),
        number.astype(complex), number.astype(bool), -number.astype(np.int64),
        number.astype(np.float16), number.astype("S8"),
        np.full(number.shape, 2**62), np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]), number.T,
    ]  # fmt: skip
    found = made[rng.integers(len(made))]
    return torch.tensor(found) if isinstance(like, torch.Tensor) and found.dtype.kind in "iufb" else found


def of_tree(tree, rng):
    """A node of nested dictionaries and lists changed, left out, renamed or doubled."""
    parent, key = tree, None
    while key is None or isinstance(parent[key], (dict, list)) and parent[key] and rng.random() < 0.85:
        parent = tree if key is None else parent[key]
        key = list(parent)[rng.integers(len(parent))] if isinstance(parent, dict) else int(rng.integers(len(parent)))
    match int(rng.integers(7)) if isinstance(parent, dict) else 9:
        case 0:
            del parent[key]
        case 1:
            parent["other"] = parent.pop(key)
        case 2:
            parent[key] = [parent[key], parent[key]]
        case _:
            parent[key] = odd(rng, parent[key])
    return tree


def of_bytes(data: bytes, rng) -> bytes:
    """Bytes lost, changed, put in, swapped."""
    spoilt, at = bytearray(data), int(rng.integers(max(len(data), 1)))
    match int(rng.integers(8)):
        case 0:
            return data[:at]
        case 1 | 2 | 3:
            for place in rng.integers(max(len(data), 1), size=int(rng.choice([1, 1, 2, 8, 64]))):
                spoilt[place] ^= 1 << int(rng.integers(8))
        case 4:
            spoilt[at : at + int(rng.integers(1, 64))] = b""
        case 5:
            spoilt[at:at] = rng.bytes(int(rng.integers(1, 64)))
        case 6:
            spoilt[at : at + 8] = [0, 2**64 - 1, 2**62, 2**40, 2**31, 10**9][rng.integers(6)].to_bytes(8, "little")
        case 7:
            return [b"", b"<html>please sign in</html>", b"\x00" * 100, data[:8], b"\n", data + data][rng.integers(6)]
    return bytes(spoilt)


def of_text(data: bytes, rng) -> bytes:
    """A word or a line of a text changed, swapped, left out or doubled."""
    lines = data.decode("utf-8").split("\n")
    at, other = (int(i) for i in rng.integers(max(len(lines) - 1, 1), size=2))
    if rng.random() < 0.2:  # the first lines decide most
        at = min(int(rng.integers(3)), len(lines) - 1)
    between = "," if "," in lines[at] else " "
    words = lines[at].split(between)
    place, second = (int(i) for i in rng.integers(len(words), size=2))
    match int(rng.integers(8)):
        case 0 | 1 | 2:
            words[place] = WORDS[rng.integers(len(WORDS))]
        case 3:
            words[place], words[second] = words[second], words[place]
        case 4:
            del words[place]
        case 5:
            words = []
        case 6:
            words = [["", between.join(words), " ", "# words", "\t"][rng.integers(5)], "\n", *words]
        case 7:
            lines[at], lines[other] = lines[other], lines[at]
            return "\n".join(lines).encode()
    lines[at : at + 1] = [between.join(words)] if words else []
    return "\n".join(lines).encode()


def damaged(kind: Kind, rng) -> tuple[dict[str, bytes], bool]:
    """The files of ``kind`` with one of them damaged, and whether every structure must still be accounted for."""
    files, names = dict(kind.files), list(kind.files)
    name = names[0] if rng.random() < 0.7 else names[rng.integers(len(names))]
    data, known = files[name], True
    if rng.random() < 0.03:
        del files[name]
        return files, known
    packer = {".gz": gzip, ".xz": lzma}.get(Path(name).suffix)
    inside = packer is not None and rng.random() < 0.75
    data = packer.decompress(data) if inside else data
    form = Path(name.removesuffix(Path(name).suffix) if inside else name).suffix.replace(".hdf5", ".h5")
    way, opened = rng.random(), packer is None or inside
    if form in FORMS and opened and way < 0.55:
        load, dump = FORMS[form]
        data, known = dump(of_tree(load(data), rng)), known and form != ".h5"
    elif form in TEXTS and opened and way < 0.7:
        data = of_text(data, rng)
    else:
        data, known = of_bytes(data, rng), form in (".npz", ".json")
    files[name] = packer.compress(data) if inside else data
    return files, known


# --- reading -------------------------------------------------------------------------------------------------

NAMED = {"md22": ["ac-ala3-nhme"], "spice": ["dipeptides"], "matbench": ["phonons"]}  # what is read of a file of these


def published(path: Path, dataset: str) -> tuple[list, list[str]]:
    """Structures of an original file, and why others are left out: of a pre-training set; another's are all or none."""
    if dataset in PRETRAINING_SETS:
        rejected = []
        return list(read_part(path, dataset=dataset, rejected=rejected)), rejected
    if dataset == "rmd17":
        of = rmd17.read_arrays(path, "ethanol", "get it again")
        frames = (make_structure(pos, of["nuclear_charges"], id=i, forces=of["forces"][i], energy=of["energies"][i])
                  for i, pos in enumerate(of["coords"]))
    else:
        frames = importlib.import_module(f"jmp_lib.data.{dataset}").read(path, *NAMED.get(dataset, ()))
    return list(whole_set(dataset, frames, 0, "", path)), []


def read(kind: Kind, folder: Path) -> tuple[int, int, int, bool]:
    """Structures and atoms that are read, how many were left out with a reason, and whether all numbers are finite."""
    path, left_out = folder / next(iter(kind.files)), []
    if kind.dataset in ("own", "folder"):
        csv = {"labels_csv": path} if kind.dataset == "folder" else {}
        found = list(read_own(folder / "cifs" if csv else path, ["gap"], ["eV"], **csv).structures)
    elif kind.dataset == "one":
        found = [from_ase(atoms, i, f"{path}: structure {i}") for i, atoms in enumerate(iter_atoms(path))]
        for structure in found:
            check_structure(structure, str(path))
    else:
        found, left_out = published(path, kind.dataset)
    if any("\n" in reason for reason in left_out):
        raise TypeError("a reason of more than one line")
    numbers = [np.asarray(s[key]) for s in found for key in s.keys() if not isinstance(s[key], str)]
    return (len(found), sum(len(s["pos"]) for s in found), len(left_out),
            all(np.isfinite(value).all() for value in numbers))


def judged(kind: Kind, folder: Path, known: bool) -> tuple[str, str]:
    """What became of one input (a column of the table), and what was said."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        count, atoms, left_out, finite = read(kind, folder)
        said, verdict = f"{count} structures, {atoms} atoms, {left_out} left out", "read" if finite else "nonsense"
        if finite and known and (count + left_out < kind.count or not left_out and atoms < kind.atoms
                                 and kind.name not in ("cif", "folder", "poscar")):  # whose atoms symmetry may merge
            verdict = "lost"
    except (ValueError, FileNotFoundError, RuntimeError) as error:
        said = str(error)
        named = any(Path(name).name in said for name in kind.files) or kind.dataset == "folder" and "cifs" in said
        own = (type(error) in (ValueError, FileNotFoundError, RuntimeError)
               or type(error).__module__.startswith("jmp_lib"))
        verdict = "traceback" if "\n" in said or not own else "refused" if named else "no file"
        verdict = "memory" if "more memory" in said else verdict  # what the child process refuses is bounded there
    except Exception as error:
        said, verdict = f"{type(error).__name__}: {error}", "memory" if isinstance(error, MemoryError) else "traceback"
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    return ("memory", f"{grown >> 20} MB more; {said}") if grown > GROWTH else (verdict, said)


def limited() -> None:
    """The start of a worker."""
    warnings.simplefilter("ignore")
    sys.stderr = sys.stdout = io.StringIO()
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


class Worker:
    """A process that reads inputs; another one after it has died or hung."""

    pool = None

    def ask(self, *question) -> tuple[str, str]:
        self.pool = self.pool or multiprocessing.get_context("fork").Pool(1, limited)
        try:
            return self.pool.apply_async(judged, question).get(SECONDS)
        except multiprocessing.TimeoutError:
            self.close()
            return "end", f"the process died, or took more than {SECONDS:.0f} s"

    def close(self) -> None:
        if self.pool is not None:
            self.pool.terminate()
            self.pool = None


def put(files: dict[str, bytes], folder: Path) -> None:
    """``files`` and nothing else into ``folder``."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, data in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)


def fuzz(inputs: int, seconds: float = np.inf, seed: int = 0, keep: Path | None = None,
         only: str = "") -> dict[str, Counter]:
    """Format -> how many inputs came to which end; inputs with faults are copied to ``keep`` with
    what was said of them.

    Input number ``i`` of ``seed`` is always the same. ``ValueError`` when a valid input is not read whole.
    """
    warnings.simplefilter("ignore")
    found: dict[str, Counter] = {}
    worker, until = Worker(), time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as temporary:
        formats, folder = ([kind for kind in kinds(Path(temporary)) if re.search(only, kind.name)],
                           Path(temporary) / "input")
        try:
            for kind in formats:
                put(kind.files, folder)
                verdict, said = worker.ask(kind, folder, True)
                if verdict != "read":
                    raise ValueError(f"the valid input of {kind.name} is not read: {verdict}, {said}")
            for number in range(inputs):
                if time.monotonic() > until:
                    break
                kind = formats[number % len(formats)]
                files, known = damaged(kind, np.random.default_rng([seed, number]))
                put(files, folder)
                verdict, said = worker.ask(kind, folder, known)
                found.setdefault(kind.name, Counter())[verdict] += 1
                if verdict in BAD and keep is not None:
                    kept = keep / f"{kind.name}-{seed}-{number}-{verdict.replace(' ', '-')}"
                    shutil.copytree(folder, kept, dirs_exist_ok=True)
                    (kept / "SAID").write_text(said + "\n")
        finally:
            worker.close()
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=np.inf, help="stop after so long")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="formats whose name has a match of this regular expression")
    parser.add_argument("--keep", type=Path, default="/tmp/jmp-fuzz", help="folder for inputs with faults")
    args = parser.parse_args(arguments)
    found = fuzz(**vars(args))
    table = pd.DataFrame(found, index=[*GOOD, *BAD]).fillna(0).astype(int).T
    table.loc["all"] = table.sum()
    faults = table.loc["all", [*BAD]].sum()
    print(f"{table}\n{table.loc['all'].sum()} inputs, {faults} faults" + f", kept in {args.keep}" * bool(faults))
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
