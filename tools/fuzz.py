"""Fuzzing of the readers: valid small files of every format, damaged at random, must be read or refused in one sentence.

    python -m tools.fuzz --inputs 20000

Each input is read in a worker process with limits of memory and time, published formats as ``data prepare`` does, others as
own data. Prints a table of what became of them. Good are ``read`` and ``refused`` (one sentence that names the file); the
other columns are faults: a sentence without the file's name (``no file``), another exception (``traceback``), the end of the
process (``death``), more memory or time than the limits (``memory``, ``time``), fewer structures or atoms than the file holds
without a word (``lost``), NaN or infinity in what was read (``nonsense``). Inputs with faults are kept. Exit code 1 with any.
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
import sqlite3
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import lmdb
import numpy as np
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
BAD = ("no file", "traceback", "death", "memory", "time", "lost", "nonsense")
NAMES = ["C", "H", "O", "H", "H", "H"]


@dataclass
class Kind:
    """A valid input. files: name -> bytes; the first is given to the reader; dataset: its file in jmp_lib.data, else "own" (a file
    of labelled structures), "one" (a single structure) or "folder"; count, atoms: what is in it."""

    name: str
    dataset: str
    files: dict[str, bytes]
    count: int
    atoms: int


# --- valid inputs --------------------------------------------------------------------------------------------


def molecule(rng, symbols=NAMES, periodic=False) -> Atoms:
    places = 1.3 * np.array([(i % 3, i // 3 % 3, i // 9) for i in range(len(symbols))]) + rng.normal(0, 0.05, (len(symbols), 3))
    atoms = Atoms(symbols, places, cell=[5, 6, 30] if periodic else None, pbc=periodic)
    atoms.calc = SinglePointCalculator(atoms, energy=float(rng.normal()), forces=rng.normal(size=places.shape))
    return atoms


def slab(rng) -> Atoms:
    atoms = molecule(rng, ["Cu"] * 4 + ["O", "H"], True)
    atoms.set_tags([0, 1, 0, 1, 2, 2])
    atoms.set_constraint(FixAtoms([0, 2]))
    return atoms


def kinds(folder: Path) -> list[Kind]:
    """A valid input of each format."""
    rng = np.random.default_rng(7)
    made: list[Kind] = []

    def add(name, dataset, count, atoms, *names, **contents):
        files = {n: (folder / n).read_bytes() for n in names} | {key: value for key, value in contents.items()}
        made.append(Kind(name, dataset, files, count, atoms))

    def npz(name, dataset, file, count, atoms, **arrays):
        np.savez(folder / file, **arrays)
        add(name, dataset, count, atoms, file)

    def h5(name, dataset, file, count, atoms, groups):
        with h5py.File(folder / file, "w") as out:
            for group, arrays in groups.items():
                for key, value in arrays.items():
                    out[f"{group}/{key}"] = value
        add(name, dataset, count, atoms, file)

    n, peptide = 42, ["C", "H", "N", "O", "H", "H"] * 7
    frames = [molecule(rng, peptide) for _ in range(3)]
    npz("md22.npz", "md22", "md22_Ac-Ala3-NHMe.npz", 3, 3 * n, z=frames[0].numbers, R=30 * rng.normal(size=(3, n, 3)), E=rng.normal(size=(3, 1)),
        F=rng.normal(size=(3, n, 3)), e_unit=np.array("kcal/mol"), md5=np.array(b"566c"))  # fmt: skip
    composition = np.repeat(*map(list, zip(*rmd17.COMPOSITION["ethanol"].items())))
    npz("rmd17.npz", "rmd17", "rmd17_ethanol.npz", 3, 27, nuclear_charges=composition, coords=30 * rng.normal(size=(3, 9, 3)),
        energies=rng.normal(size=3), forces=rng.normal(size=(3, 9, 3)), old_indices=np.arange(3), md5=np.array("ab"))  # fmt: skip
    properties = rng.normal(size=(12, 4))
    npz("qm9.npz", "qm9", "qm9_parts.npz", 4, 12, id=np.arange(1, 5), N=np.full(4, 3, np.int8), R=30 * rng.normal(size=(12, 3)),
        Z=np.tile([8, 1, 1], 4).astype(np.uint8), **dict(zip((key for key, _ in qm9.TARGETS.values()), properties)))  # fmt: skip
    torch.save([{"pos": torch.rand(3, 3), "z": torch.tensor([8, 1, 1]), "y": torch.rand(1, 19), "name": f"gdb_{i}"} for i in range(3)],
               folder / "qm9_v3.pt")  # fmt: skip
    add("qm9.pt", "qm9", 3, 9, "qm9_v3.pt")
    npz("qmof.npz", "qmof", "qmof_parts.npz", 3, 6, qmof_id=np.array([f"qmof-{i}" for i in range(3)]), natoms=np.full(3, 2),
        cellpar=np.tile([5.0, 6, 7, 90, 80, 70], (3, 1)), Z=np.tile([30, 8], 3), frac=np.tile([[0, 0, 0], [0.3, 0.5, 0.5]], (3, 1)),
        bandgap_pbe=np.arange(3) * 0.1)  # fmt: skip
    cell = np.diag([4.0, 5, 6]).tolist()
    sites = [{"label": s, "species": [{"element": s, "occu": 1}], "abc": [x] * 3, "xyz": [4 * x, 5 * x, 6 * x]}
             for s, x in (("Zn", 0.0), ("O", 0.5))]  # fmt: skip
    crystal = {"lattice": {"matrix": cell}, "sites": sites}
    about = [{"qmof_id": f"qmof-{i}", "info": {"natoms": 2}, "outputs": {"pbe": {"bandgap": 0.1 * i}}} for i in range(3)]
    structures = [{"qmof_id": f"qmof-{i}", "structure": crystal} for i in range(3)]
    lists = {"qmof.json": json.dumps(about).encode(), "qmof_structure_data.json": json.dumps(structures).encode()}
    made.append(Kind("qmof.json", "qmof", lists, 3, 6))
    rows = {"index": [0, 7, "mb-phonons-0009"], "columns": ["structure", "last phdos peak"], "data": [[crystal, 100.0 + i] for i in range(3)]}
    made.append(Kind("matbench", "matbench", {"matbench_phonons.json.gz": gzip.compress(json.dumps(rows).encode())}, 3, 6))

    def arrays(names, f=3, **texts):
        values = [np.array([6, 1, 1, 1]), 30 * rng.normal(size=(f, 4, 3)), rng.normal(size=f), rng.normal(size=(f, 4, 3))]
        return dict(zip(("atomic_numbers", *names), values)) | texts

    ani = ("coordinates", "wb97x_dz.energy", "wb97x_dz.forces")
    h5("ani1x", "ani1x", "ani1x-release.h5", 6, 24, {f"C{i}H4": arrays(ani, **{"ccsd(t)_cbs.energy": np.full(3, np.nan)}) for i in "12"})
    t1x = ("positions", transition1x.ENERGY, transition1x.FORCES)
    h5("transition1x", "transition1x", "Transition1x.h5", 6, 24, {f"data/C1H3/rxn{i:04d}": arrays(t1x) for i in range(2)})
    said = {"subset": [(spice.SUBSETS["dipeptides"] + " v1.3").encode()], "formation_energy": rng.normal(size=3), "smiles": [b"CC"]}
    fields = ("conformations", "dft_total_energy", "dft_total_gradient")
    h5("spice", "spice", "SPICE-1.1.4.hdf5", 6, 24, {f"ala-{i}": arrays(fields, **said) for i in range(2)})

    images = [slab(rng) for _ in range(3)]
    xyz = io.StringIO()
    write(xyz, images, format="extxyz")
    lines = "".join(f"random77,frame{i},{-28.5 - i}\n" for i in range(3)).encode()
    made.append(Kind("oc20.extxyz", "oc20", {"0.extxyz": xyz.getvalue().encode(), "0.txt": lines}, 3, 18))
    packed = {"0.extxyz.xz": lzma.compress(xyz.getvalue().encode()), "0.txt.xz": lzma.compress(lines)}
    made.append(Kind("oc20.xz", "oc20", packed, 3, 18))
    graphs = [Data(pos=torch.tensor(a.positions, dtype=torch.float32), cell=torch.tensor(a.cell.array[None]), natoms=6,
                   atomic_numbers=torch.tensor(a.numbers, dtype=torch.float32), tags=torch.tensor(a.get_tags()), sid=77, fid=i,
                   fixed=torch.tensor([1.0, 0, 1, 0, 0, 0]), y=float(i), force=torch.rand(6, 3)) for i, a in enumerate(images)]  # fmt: skip
    for dataset in ("oc20", "oc22"):
        made.append(Kind(f"{dataset}.lmdb", dataset, {"a.lmdb": lmdb_of(graphs, folder)}, 3, 18))
    made.append(Kind("oc22.pkl", "oc22", {"a.pkl": pickle.dumps(graphs)}, 3, 18))

    frames = [molecule(rng, periodic=i % 2 == 0) for i in range(10)]
    for i, atoms in enumerate(frames):
        atoms.info["gap"] = 0.1 * i
    text = io.StringIO()
    write(text, frames, format="extxyz")
    made.append(Kind("own.extxyz", "own", {"mine.extxyz": text.getvalue().encode()}, 10, 60))
    made.append(Kind("own.xyz.gz", "own", {"mine.xyz.gz": gzip.compress(text.getvalue().encode())}, 10, 60))
    write(folder / "mine.traj", frames)
    add("own.traj", "own", 10, 60, "mine.traj")
    with connect(folder / "mine.db", append=False) as rows:
        for atoms in frames:
            rows.write(atoms, gap=atoms.info["gap"])
    add("own.db", "own", 10, 60, "mine.db")
    crystals = [molecule(rng, ["Na", "Cl"], True) for _ in range(10)]
    for i, atoms in enumerate(crystals):
        write(folder / f"c{i}.cif", atoms)
    write(folder / "POSCAR", crystals[0])
    write(folder / "one.extxyz", crystals[0])
    add("cif", "one", 1, 2, "c0.cif")
    add("poscar", "one", 1, 2, "POSCAR")
    add("one.extxyz", "one", 1, 2, "one.extxyz")
    labels = "name,gap\n" + "".join(f"c{i},{0.1 * i}\n" for i in range(10))
    made.append(Kind("folder", "folder", {"labels.csv": labels.encode()} | {f"cifs/c{i}.cif": (folder / f"c{i}.cif").read_bytes()
                                                                           for i in range(10)}, 10, 20))  # fmt: skip
    return made


def lmdb_of(graphs: list, folder: Path, length=None) -> bytes:
    path = folder / "graphs.lmdb"
    path.unlink(missing_ok=True)
    with lmdb.open(str(path), subdir=False, map_size=1 << 20, lock=False) as env, env.begin(write=True) as transaction:
        for number, graph in enumerate(graphs):
            transaction.put(str(number).encode(), graph if isinstance(graph, bytes) else pickle.dumps(graph))
        transaction.put(b"length", pickle.dumps(len(graphs) if length is None else length))
    return path.read_bytes()


# --- damage --------------------------------------------------------------------------------------------------

WORDS = ["nan", "inf", "-1", "0", "1e308", "1e999", "99999999999", "9223372036854775808", "abc", "", '"', "0.5", "2", "None", "[", "é"]
NODES = [None, True, -1, 0, 1e308, 10**400, "abc", "", [], {}, [[]], {"a": 1}, "nan", 99999999999]


def odd(rng, like: np.ndarray | None = None):
    """An array, number or text of a kind that is not expected."""
    like = np.zeros(3) if like is None else np.asarray(like)
    number = like if like.dtype.kind in "iufb" else np.zeros(3)
    spoilt = np.array(number, dtype=np.float64)
    if spoilt.size:
        spoilt.reshape(-1)[rng.integers(spoilt.size)] = [np.nan, np.inf, 1e300, -1e9, -1][rng.integers(5)]
    made = [
        spoilt, number.reshape(-1)[:-1], number[None], np.float64(1.0), np.array("text"), np.array(["a", "b"]), np.zeros(0),
        np.zeros((0, 3)), number.astype(complex), number.astype(bool), -number.astype(np.int64), number.astype(np.float16),
        np.full(number.shape, 2**62), number.astype("S8"), np.concatenate([number, number]) if number.ndim else number,
        np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]), number.T, number.astype(">f8"),
    ]  # fmt: skip
    return made[rng.integers(len(made))]


def of_bytes(data: bytes, rng) -> bytes:
    """Bytes lost, changed, put in, swapped."""
    spoilt, at = bytearray(data), int(rng.integers(max(len(data), 1)))
    match int(rng.integers(9)):
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
            length = min(int(rng.integers(1, 512)), len(data) - at)
            spoilt[at : at + length] = bytes([int(rng.choice([0, 255]))]) * length
        case 7:
            spoilt[at : at + 8] = int(rng.choice([2**62, 2**40, 2**31, 10**9])).to_bytes(8, "little")
        case 8:
            return [b"", b"<html>please sign in</html>", b"\x00" * 100, data[:8], b"\n", data + data][rng.integers(6)]
    return bytes(spoilt)


def of_text(data: bytes, rng) -> bytes:
    """Words and lines of a text changed, swapped, left out, doubled."""
    lines = data.decode("utf-8").split("\n")
    at = int(rng.integers(max(len(lines) - 1, 1)))
    if rng.random() < 0.2:  # the first lines decide most
        at = min(int(rng.integers(3)), len(lines) - 1)
    words = lines[at].split(" ")
    place = int(rng.integers(len(words)))
    match int(rng.integers(9)):
        case 0 | 1 | 2:
            words[place] = WORDS[rng.integers(len(WORDS))]
            lines[at] = " ".join(words)
        case 3:
            other = int(rng.integers(len(words)))
            words[place], words[other] = words[other], words[place]
            lines[at] = " ".join(words)
        case 4:
            del words[place]
            lines[at] = " ".join(words)
        case 5:
            del lines[at]
        case 6:
            lines.insert(at, ["", lines[at], " ", "# words", "\t"][rng.integers(5)])
        case 7:
            other = int(rng.integers(len(lines)))
            lines[at], lines[other] = lines[other], lines[at]
        case 8:
            pieces = lines[at].split(",") if "," in lines[at] else list(lines[at]) or [""]
            pieces[rng.integers(len(pieces))] = WORDS[rng.integers(len(WORDS))]
            lines[at] = ("," if "," in lines[at] else "").join(pieces)
    return "\n".join(lines).encode()


def of_json(data: bytes, rng) -> bytes:
    """A node of a JSON text changed, left out or doubled."""
    root = {"root": json.loads(data)}
    parent, key = root, "root"
    while rng.random() < 0.85 and isinstance(parent[key], (dict, list)) and parent[key]:
        parent = parent[key]
        key = list(parent)[rng.integers(len(parent))] if isinstance(parent, dict) else int(rng.integers(len(parent)))
    match int(rng.integers(4)):
        case 0 | 1:
            parent[key] = NODES[rng.integers(len(NODES))]
        case 2 if parent is not root:
            del parent[key]
        case _:
            parent[key] = [parent[key], parent[key]]
    return json.dumps(root.get("root")).replace("NaN", "1e999").encode()


def of_npz(data: bytes, rng) -> bytes:
    """An array of an npz archive changed, left out, renamed, turned into objects, or with a header of another size."""
    arrays = dict(np.load(io.BytesIO(data)))
    key = list(arrays)[rng.integers(len(arrays))]
    out = io.BytesIO()
    match int(rng.integers(8)):
        case 0:
            del arrays[key]
        case 1:
            arrays[key] = np.array([{"a": 1}], dtype=object)
        case 2:
            arrays["other"] = arrays.pop(key)
        case 3:
            import zipfile

            header = io.BytesIO()
            shape = (int(rng.choice([10**6, 10**9, 10**12, 2**62])), *arrays[key].shape[1:])
            about = np.lib.format.header_data_from_array_1_0(arrays[key]) | {"shape": shape}
            np.lib.format.write_array_header_1_0(header, about)
            with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
                for name, array in arrays.items():
                    packed.writestr(f"{name}.npy", header.getvalue() + array.tobytes() if name == key else npy(array))
            return out.getvalue()
        case _:
            arrays[key] = odd(rng, arrays[key])
    np.savez(out, **arrays)
    return out.getvalue()


def npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def of_h5(data: bytes, rng) -> bytes:
    """A node of an HDF5 file replaced, left out, linked, or with other attributes."""
    memory = io.BytesIO(data)
    with h5py.File(memory, "r+") as file:
        nodes: list[str] = []
        file.visit(nodes.append)
        key = nodes[rng.integers(len(nodes))]
        value = file[key][()] if isinstance(file[key], h5py.Dataset) else None
        if rng.random() < 0.1:
            file[key].attrs[["units", "a"][rng.integers(2)]] = [3, "angstrom", np.zeros(3), b"\xff", np.nan][rng.integers(5)]
            return closed(file, memory)
        del file[key]
        match int(rng.integers(8)):
            case 0:
                pass
            case 1:
                file.create_group(key)
            case 2:
                file[key] = h5py.SoftLink(["/nowhere", "/", nodes[rng.integers(len(nodes))]][rng.integers(3)])
            case 3:
                file[key] = h5py.ExternalLink("elsewhere.h5", "/a")
            case 4:
                shape = (int(rng.choice([10**6, 10**9, 10**12])), 4, 3)
                file.create_dataset(key, shape, "f4", chunks=(int(rng.choice([1, 10**6])), 4, 3), compression="gzip")
            case 5:
                file[key] = ["text", h5py.Empty("f4"), [b"a", b"b"]][rng.integers(3)]
            case _:
                spoilt = odd(rng, value)
                file[key] = spoilt.astype("S8") if spoilt.dtype.kind == "U" else spoilt
        return closed(file, memory)


def closed(file, memory: io.BytesIO) -> bytes:
    file.close()
    return memory.getvalue()


def spoil_graphs(graphs: list, rng) -> list:
    """A field of a graph changed or left out, or the graph something else."""
    graphs = [Data(**graph.to_dict()) for graph in graphs]
    at = int(rng.integers(len(graphs)))
    key = list(graphs[at].keys())[rng.integers(len(graphs[at].keys()))]
    if rng.random() < 0.15:
        graphs[at] = [None, 3, "text", [1], {"a": 1}, {}, {"pos": None}][rng.integers(7)]
    elif rng.random() < 0.2:
        del graphs[at][key]
    else:
        value = graphs[at][key]
        spoilt = odd(rng, value.numpy() if isinstance(value, torch.Tensor) else np.asarray(value))
        plain = spoilt.dtype.kind in "iufb" and spoilt.dtype.isnative and spoilt.flags.writeable
        graphs[at][key] = torch.tensor(spoilt) if plain and rng.random() < 0.7 else [spoilt, "text", None, {}, 10**30][rng.integers(5)]
    return graphs


def of_pickle(data: bytes, rng) -> bytes:
    return pickle.dumps(spoil_graphs(pickle.loads(data), rng))


def of_lmdb(graphs: list, rng, folder: Path) -> bytes:
    """Records changed, damaged or missing in an LMDB, or another length."""
    if rng.random() < 0.25:
        return lmdb_of(graphs, folder, [10**18, 10**9, 4, 2, 0, -1, "3", None, 2.5, [3]][rng.integers(10)])
    if rng.random() < 0.3:
        return lmdb_of([of_bytes(pickle.dumps(graph), rng) if i == 1 else graph for i, graph in enumerate(graphs)], folder)
    return lmdb_of(spoil_graphs(graphs, rng), folder)


def of_sqlite(data: bytes, rng, folder: Path) -> bytes:
    """A cell of the table of structures of an ASE database changed."""
    path = folder / "spoilt.db"
    path.write_bytes(data)
    with sqlite3.connect(path) as base:
        table = ["systems", "systems", "systems", "systems", "text_key_values", "number_key_values", "keys"][rng.integers(7)]
        columns = [row[1] for row in base.execute(f"pragma table_info({table})")]
        values = [None, -1, 10**12, 2.5, "text", "{}", "[1, 2]", b"", b"\x00" * 8, rng.bytes(24), '{"gap": "nan"}', "{"]
        column, value = columns[rng.integers(len(columns))], values[rng.integers(len(values))]
        try:
            base.execute(f"update {table} set {column} = ? where rowid = 3", (value,))
        except sqlite3.Error:
            base.execute(f"delete from {table} where rowid = 3")
    base.close()
    return path.read_bytes()


def damaged(kind: Kind, rng, folder: Path) -> tuple[dict[str, bytes], bool]:
    """The files of ``kind`` with one of them damaged once or twice, and whether every structure must still be accounted for."""
    files, names = dict(kind.files), list(kind.files)
    name = names[0] if rng.random() < 0.7 else names[rng.integers(len(names))]
    data, known = files[name], name != "uncharacterized.txt"
    if rng.random() < 0.03:
        del files[name]
        return files, known
    opener = {".gz": gzip, ".xz": lzma}.get(Path(name).suffix)
    inside = opener is not None and rng.random() < 0.75
    if inside:
        data = opener.decompress(data)
    form = Path(name.removesuffix(Path(name).suffix) if inside else name).suffix
    forms: dict[str, Callable] = {".json": of_json, ".npz": of_npz, ".h5": of_h5, ".hdf5": of_h5, ".pkl": of_pickle}
    is_text = (opener is None or inside) and form in (".xyz", ".extxyz", ".txt", ".csv", ".cif", ".json", "")
    raw = rng.random() < 0.35
    if not raw and form == ".lmdb":
        data = of_lmdb(pickle.loads(_GRAPHS["pkl"]), rng, folder)
    elif not raw and form == ".db":
        data, known = of_sqlite(data, rng, folder), False
    elif not raw and form in forms and rng.random() < 0.8:
        data, known = forms[form](data, rng), known and form not in (".h5", ".hdf5")
    elif not raw and is_text:
        data = of_text(data, rng)
        if rng.random() < 0.3:
            data = of_text(data, rng)
    else:
        data, known = of_bytes(data, rng), form in (".npz", ".json")
    files[name] = opener.compress(data) if inside else data
    return files, known


_GRAPHS: dict[str, bytes] = {}

# --- reading -------------------------------------------------------------------------------------------------


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
    return [dict(s.items()) for s in whole_set(dataset, frames, 0, "", path)], []


NAMED = {"md22": ["ac-ala3-nhme"], "spice": ["dipeptides"], "matbench": ["phonons"]}  # what is read of a file of these


def read(kind: Kind, folder: Path) -> tuple[int, int, int, bool]:
    """Structures and atoms that are read, how many were left out with a reason, and whether all numbers are finite."""
    path = folder / next(iter(kind.files))
    if kind.dataset not in ("own", "one", "folder"):
        found, left_out = published(path, kind.dataset)
        if any("\n" in reason for reason in left_out):
            raise TypeError("a reason of more than one line")
        numbers = [value for s in found for key, value in s.items() if key not in ("pbc", "fixed") and not isinstance(value, str)]
        finite = all(np.isfinite(value).all() for value in numbers)
        return len(found), sum(len(s["pos"]) for s in found), len(left_out), finite
    if kind.dataset == "one":
        structures = [from_ase(atoms, i, f"{path}: structure {i}") for i, atoms in enumerate(iter_atoms(path))]
        for structure in structures:
            check_structure(structure, str(path))
        pos = [structure["pos"] for structure in structures]
        return len(pos), sum(map(len, pos)), 0, all(np.isfinite(p).all() for p in pos)
    csv = {"labels_csv": path} if kind.dataset == "folder" else {}
    data = read_own(folder / "cifs" if csv else path, ["gap"], ["eV"], **csv).structures
    return len(data), int(data.natoms.sum()), 0, bool(np.isfinite(data.pos).all() and np.isfinite(data.scalars["gap"]).all())


def judged(kind: Kind, folder: Path, known: bool) -> tuple[str, str]:
    """What became of one input (a column of the table), and what was said."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        count, atoms, left_out, finite = read(kind, folder)
        said, verdict = f"{count} structures, {atoms} atoms, {left_out} left out", "read"
        if not finite:
            verdict = "nonsense"
        elif known and (count + left_out < kind.count or kind.name not in ("cif", "folder", "poscar") and not left_out and atoms < kind.atoms):
            verdict = "lost"
    except (ValueError, FileNotFoundError, RuntimeError) as error:
        said = str(error)
        named = any(Path(name).name in said for name in kind.files) or kind.dataset == "folder" and "cifs" in said
        own = type(error) in (ValueError, FileNotFoundError, RuntimeError) or type(error).__module__.startswith("jmp_lib")
        verdict = "traceback" if "\n" in said or not own else "refused" if named else "no file"
        verdict = "memory" if "more memory" in said else verdict  # what the child process refuses is bounded there
    except MemoryError as error:
        said, verdict = f"MemoryError {error}", "memory"
    except Exception as error:
        said, verdict = f"{type(error).__name__}: {error}", "traceback"
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    return ("memory", f"{grown >> 20} MB more; {said}") if grown > GROWTH else (verdict, said)


def work(pipe) -> None:
    """A worker: reads what it is told of until the pipe is closed."""
    warnings.simplefilter("ignore")
    sys.stderr = sys.stdout = io.StringIO()
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while True:
        try:
            pipe.send(judged(*pipe.recv()))
        except EOFError:
            return


class Worker:
    """A process that reads inputs, started again when it died or hangs."""

    def __init__(self):
        self.process = None

    def ask(self, *question) -> tuple[str, str]:
        if self.process is None:
            context = multiprocessing.get_context("fork")
            self.pipe, theirs = context.Pipe()
            self.process = context.Process(target=work, args=(theirs,), daemon=True)
            self.process.start()
            theirs.close()
        self.pipe.send(question)
        try:
            if self.pipe.poll(SECONDS):
                return self.pipe.recv()
            verdict = "time", f"more than {SECONDS:.0f} s"
        except EOFError:
            self.process.join()
            verdict = "death", f"exit code {self.process.exitcode}"
        self.close()
        return verdict

    def close(self) -> None:
        if self.process is not None:
            self.pipe.close()
            self.process.kill()
            self.process.join()
            self.process = None


def fuzz(inputs: int, seconds: float | None = None, seed: int = 0, keep: Path | None = None, only: str = "") -> dict[str, Counter]:
    """Format -> how many inputs came to which end; inputs with faults are copied to ``keep`` with what was said of them.

    Input number ``i`` of ``seed`` is always the same. ``ValueError`` when a valid input is not read whole.
    """
    warnings.simplefilter("ignore")
    found: dict[str, Counter] = {}
    worker, until = Worker(), time.monotonic() + (seconds or np.inf)
    with tempfile.TemporaryDirectory() as temporary:
        scratch, folder = Path(temporary) / "scratch", Path(temporary) / "input"
        scratch.mkdir()
        formats = kinds(scratch)
        _GRAPHS["pkl"] = next(kind for kind in formats if kind.name == "oc22.pkl").files["a.pkl"]
        formats = [kind for kind in formats if re.search(only, kind.name)]

        def put(files: dict[str, bytes]) -> None:
            shutil.rmtree(folder, ignore_errors=True)
            for name, data in files.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(data)
            folder.mkdir(exist_ok=True)

        try:
            for kind in formats:
                put(kind.files)
                verdict, said = worker.ask(kind, folder, True)
                if verdict != "read" and kind.name != "own.traj":  # which is refused
                    raise ValueError(f"the valid input of {kind.name} is not read: {verdict}, {said}")
            for number in range(inputs):
                if time.monotonic() > until:
                    break
                kind = formats[number % len(formats)]
                files, known = damaged(kind, np.random.default_rng([seed, number]), scratch)
                put(files)
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
    parser.add_argument("--seconds", type=float, help="stop after so long")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="formats whose name has a match of this regular expression")
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()) / "jmp-fuzz", help="folder for inputs with faults")
    args = parser.parse_args(arguments)
    begun = time.monotonic()
    found = fuzz(args.inputs, args.seconds, args.seed, args.keep, args.only)
    total = sum(found.values(), Counter())
    print(f"{'format':14s}" + "".join(f"{word:>10s}" for word in (*GOOD, *BAD)))
    for name, counts in (found | {"all": total}).items():
        print(f"{name:14s}" + "".join(f"{counts[word]:10d}" for word in (*GOOD, *BAD)))
    faults = sum(total[word] for word in BAD)
    print(f"{total.total()} inputs in {time.monotonic() - begun:.0f} s, {faults} faults" + (f", kept in {args.keep}" if faults else ""))
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
