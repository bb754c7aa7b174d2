"""The store against LMDB of pickled torch_geometric graphs and extended XYZ, and how conversion scales.

The structures are made here from their number (slabs of 40 to 110 atoms for reading, molecules of 9 to 21 atoms for
converting; energy, forces, tags, fixed, sid): their values do not matter for speed, their sizes are those of the
catalysis and molecule sets. All forms of the reading test hold the same structures and are read at the same random
rows, in turns, in one run; each is read once before, so all come from memory and not from the disk.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import write

from jmp_lib.data.store import Part, write_store
from jmp_lib.data.structures import StructureSet

ROUNDS = 5
ROOT = str(Path(__file__).resolve().parents[2])


def slabs(count: int) -> Iterator[dict]:
    """Catalyst-like structures: 40 to 110 atoms, cell, tags, fixed atoms."""
    rng = np.random.default_rng(0)
    for i in range(count):
        n = int(rng.integers(40, 111))
        yield {
            "pos": rng.uniform(0, 12, (n, 3)).astype(np.float32),
            "atomic_numbers": rng.integers(1, 80, n),
            "cell": np.diag(rng.uniform(10, 14, 3)),
            "pbc": np.ones(3, dtype=bool),
            "tags": rng.integers(0, 3, n),
            "fixed": rng.random(n) < 0.5,
            "forces": rng.normal(size=(n, 3)).astype(np.float32),
            "energy": float(rng.normal() * 100),
            "sid": f"random{i}",
        }


def molecules(count: int, start: int = 0) -> Iterator[dict]:
    """Molecule-like structures: 9 to 21 atoms, no cell; those with numbers ``start`` to ``start + count``."""
    rng = np.random.default_rng(1 + start)
    for i in range(start, start + count):
        n = 9 + i % 13
        values = rng.random((2, n, 3), dtype=np.float32)
        yield {"pos": values[0] * 6, "atomic_numbers": np.full(n, 1 + i % 9), "forces": values[1] - 0.5,
               "energy": -1000.0 - i % 977, "sid": f"molecule{i // 100}"}  # fmt: skip


HELP = "the store against LMDB of pickled graphs and extended XYZ; conversion of many"


def add_options(parser) -> None:
    """Options of this measurement."""
    parser.add_argument("--structures", type=int, default=10_000, help="structures of the reading test (default 10000)")
    parser.add_argument("--reads", type=int, default=5_000, help="random reads of each form (default 5000)")
    parser.add_argument("--convert", default="10000,100000,1000000",
                        help="numbers of structures to convert, with commas")
    parser.add_argument("--folder", help="where to write (default: a temporary folder); needs about 2 GB for a million")


def run(args) -> dict:
    """Both measurements; prints and returns the numbers."""
    own = tempfile.mkdtemp(prefix="jmp-benchmark-", dir=args.folder)
    try:
        found = {"reading": reading(Path(own), args.structures, args.reads),
                 "conversion": [conversion(Path(own), int(n)) for n in args.convert.split(",") if n]}
    finally:
        shutil.rmtree(own, ignore_errors=True)
    _print(found)
    return found


def reading(folder: Path, count: int, reads: int) -> dict:
    """Seconds per random read and bytes per structure of each form."""
    store = write_store(folder / "store", [Part("slabs", partial(slabs, count))], name="benchmark")
    database = _write_lmdb(folder / "graphs.lmdb", store)
    write(folder / "all.extxyz", [Atoms(s.z, s.pos, cell=s.cell, pbc=s.pbc) for s in store])
    rows = np.random.default_rng(2).integers(0, count, reads).tolist()

    def from_lmdb(row):
        with database.begin() as transaction:
            return pickle.loads(transaction.get(str(row).encode()))

    forms = {"store": store.__getitem__, "LMDB of pickled graphs": from_lmdb}
    for row in rows[:100]:
        graph, structure = from_lmdb(row), store[row]
        if not (np.array_equal(graph.pos.numpy(), structure["pos"])
                and np.array_equal(graph.force.numpy(), structure["forces"])):
            raise RuntimeError("the two forms do not hold the same structures")
    times: dict[str, list[float]] = {name: [] for name in forms}
    for turn in range(ROUNDS + 1):
        for name, read in forms.items():
            start = time.perf_counter()
            for row in rows:
                read(row)
            if turn:  # the first turn only warms the caches
                times[name].append((time.perf_counter() - start) / reads)
    sizes = {
        "store": sum(file.stat().st_size for file in store.path.iterdir()),
        "LMDB of pickled graphs": (folder / "graphs.lmdb").stat().st_blocks * 512,  # LMDB files have holes
        "extended XYZ": (folder / "all.extxyz").stat().st_size,
    }
    database.close()
    median = {name: float(np.median(values)) for name, values in times.items()}
    return {
        "structures": count, "reads": reads, "atoms_per_structure": float(store.natoms.mean()),
        "seconds_per_read": median, "all_rounds": times,
        "bytes_per_structure": {k: v / count for k, v in sizes.items()},
        "store_is_faster_by": median["LMDB of pickled graphs"] / median["store"],
    }  # fmt: skip


def _write_lmdb(path: Path, store: StructureSet):
    """An LMDB of pickled torch_geometric graphs with the fields of the Open Catalyst records."""
    import lmdb
    from torch_geometric.data import Data

    database = lmdb.open(str(path), map_size=1 << 40, subdir=False, meminit=False, map_async=True)
    with database.begin(write=True) as transaction:
        for row, s in enumerate(store):
            graph = Data(
                pos=s.pos, atomic_numbers=s.z.float(), cell=s.cell.float()[None], natoms=len(s.pos), tags=s.tags,
                fixed=s.fixed.float(), force=s.forces, y=float(s.energy), sid=s.sid, fid=row,
            )  # fmt: skip
            transaction.put(str(row).encode(), pickle.dumps(graph, protocol=-1))
    database.sync()
    return database


_CONVERSION = """
import json, re, sys, time
from functools import partial
from tools.benchmarks.store import molecules
from jmp_lib.data.store import Part, write_store

def peak():  # of this process alone, which getrusage is not after a start by another one
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024

def timed(work):
    clock, processor = time.perf_counter(), time.process_time()
    result = work()
    return result, time.perf_counter() - clock, time.process_time() - processor

def main():
    count, target = int(sys.argv[1]), sys.argv[2]
    _, making_clock, making_processor = timed(lambda: sum(1 for _ in molecules(count)))
    before = peak()
    store, clock, processor = timed(
        lambda: write_store(target, [Part("molecules", partial(molecules, count))], name="molecules",
                            chunk_bytes=32 << 20))
    print(json.dumps({
        "structures": count,
        "processor_seconds_per_structure": (processor - making_processor) / count,
        "clock_seconds_per_structure": (clock - making_clock) / count, "clock_seconds": clock,
        "memory_mb_before": before, "memory_mb_peak": peak(),
        "bytes_per_structure": sum(file.stat().st_size for file in store.path.iterdir()) / count,
    }))

if __name__ == "__main__":
    main()
"""


def conversion(folder: Path, count: int) -> dict:
    """Time per structure and peak memory of making a store of ``count`` molecules, in a process of its own.

    Time is that of the processor (what else runs on the machine does not count) and by the clock; making up the
    structures is measured apart and taken off.
    """
    target = folder / f"converted-{count}"
    script = folder / "conversion.py"
    script.write_text(_CONVERSION)
    environment = {**os.environ,
                   "PYTHONPATH": os.pathsep.join(path for path in (ROOT, os.environ.get("PYTHONPATH")) if path)}
    done = subprocess.run([sys.executable, script, str(count), target], capture_output=True, text=True,
                          check=False, env=environment)  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"the conversion of {count} structures failed: {done.stderr[-2000:]}")
    shutil.rmtree(target)
    return json.loads(done.stdout.splitlines()[-1])


def _print(found: dict) -> None:
    reads = found["reading"]
    print(f"{reads['structures']} structures of {reads['atoms_per_structure']:.1f} atoms, "
          f"{reads['reads']} random reads, median of {ROUNDS} rounds, from memory")
    for name, size in reads["bytes_per_structure"].items():
        seconds = reads["seconds_per_read"].get(name)
        speed = f"{seconds * 1e6:9.1f} µs a read" if seconds else f"{'':9s} no random access"
        print(f"  {name:24s} {speed}   {size:8.0f} bytes a structure")
    print(f"  the store is {reads['store_is_faster_by']:.0f} times faster")
    for row in found["conversion"]:
        print(f"  converting {row['structures']:9d} structures: {row['processor_seconds_per_structure'] * 1e6:6.1f} µs "
              f"of the processor each ({row['clock_seconds_per_structure'] * 1e6:.1f} by the clock), peak memory "
              f"{row['memory_mb_peak']:.0f} MB ({row['memory_mb_before']:.0f} MB before)")
