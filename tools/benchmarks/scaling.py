"""How the cost of neighbour search, graphs and index sets grows with the number of atoms: 50 to 20,000.

A periodic crystal (rocksalt with atoms moved by chance from their places) and a box of water-like molecules at the
density of water, 6 Å and 30 neighbours. Processor time of one thread, the best of at least five turns; memory is
the peak of what numpy asked for. The exponent is the slope of log time against log atoms: 1 is linear.
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable

import numpy as np
from ase.build import bulk, molecule

from jmp_lib.graphs import GraphCache, GraphConfig, collate
from jmp_lib.graphs.build import a2a_edges, cut_graphs
from tools.benchmarks.graphs import structure_of

HELP = "neighbour search, graphs and index sets from 50 to 20,000 atoms; batching per structure"
STEPS = ("search", "graphs", "collate")


def add_options(parser) -> None:
    """Options of this measurement."""
    parser.add_argument("--atoms", default="50,200,1000,5000,20000", help="numbers of atoms, with commas")
    parser.add_argument("--cutoff", type=float, default=6.0, help="Å (default 6)")
    parser.add_argument("--batches", default="1,8,64", help="structures of the batches (100 atoms each), with commas")


def run(args) -> dict:
    """Measures both systems and the batches; prints and returns the numbers."""
    config, found = GraphConfig(args.cutoff, 30), {}
    for name, make in (("crystal", crystal), ("water", water)):
        rows = [one_size(make(int(n)), config) for n in args.atoms.split(",")]
        found[name] = {"sizes": rows, "exponent": {step: exponent(rows, step) for step in (*STEPS, "total")}}
        _print(name, found[name])
    found["batches"] = [one_batch(int(count), config) for count in args.batches.split(",")]
    for row in found["batches"]:
        print(f"batch of {row['structures']:4d} boxes of {row['atoms_per_structure']} atoms: "
              f"graphs {row['graphs_ms_per_structure']:.3f} ms a structure, "
              f"batching {row['collate_ms_per_structure']:.3f} ms, "
              f"with dropped edges {row['dropout_ms_per_structure']:.3f} ms")  # fmt: skip
    return {"cutoff": args.cutoff, "max_neighbors": config.max_neighbors, **found}


def crystal(natoms: int) -> dict:
    """About ``natoms`` atoms of rocksalt, 5.64 Å, moved by 0.1 Å at random."""
    cell = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    side = max(round((natoms / 8) ** (1 / 3)), 1)
    atoms = cell.repeat((side, side, max(round(natoms / 8 / side**2), 1)))
    atoms.positions += np.random.default_rng(0).normal(0, 0.1, atoms.positions.shape)
    return structure_of(atoms)


def water(natoms: int) -> dict:
    """About ``natoms`` atoms of water molecules turned at random on a grid of 3.1 Å (29.8 Å³ a molecule), periodic."""
    rng = np.random.default_rng(1)
    count = max(round(natoms / 3), 1)
    side = int(np.ceil(count ** (1 / 3) - 1e-9))
    layers = -(-count // side**2)
    places = np.indices((side, side, layers)).reshape(3, -1).T[:count] * 3.1
    one = molecule("H2O").positions
    turns = np.linalg.qr(rng.normal(size=(count, 3, 3)))[0]
    numbers = np.tile(molecule("H2O").numbers, count)
    positions = (one - one.mean(0)) @ turns + places[:, None]
    cell = np.diag([side, side, layers]) * 3.1
    return {"pos": positions.reshape(-1, 3).astype(np.float32), "atomic_numbers": numbers, "cell": cell,
            "pbc": np.ones(3, dtype=bool), "tags": np.full(3 * count, 2)}  # fmt: skip


def one_size(structure: dict, config: GraphConfig) -> dict:
    """Seconds of each step and peak memory for one structure."""
    natoms = len(structure["pos"])
    turns = max(5, 5000 // natoms)
    edges, search = best(lambda: a2a_edges(structure, config), turns)
    graphs, cut = best(lambda: cut_graphs([structure], [edges], [config]), turns)
    _, batch = best(lambda: collate([{**structure, "graphs": graphs}]), turns)
    tracemalloc.start()
    cut_graphs([structure], [a2a_edges(structure, config)], [config])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return {"atoms": natoms, "search": search, "graphs": cut, "collate": batch, "total": search + cut + batch,
            "peak_bytes": peak, "main_edges": graphs["main_edge_index"].shape[1],
            "a2a_edges": graphs["a2a_edge_index"].shape[1]}  # fmt: skip


def one_batch(count: int, config: GraphConfig) -> dict:
    """Milliseconds per structure for a batch of ``count`` boxes of water."""
    structures = [water(100)] * count
    kept, dropping = GraphCache(structures, config), GraphCache(structures, config, 0.1, np.random.default_rng(0))
    _, build = best(lambda: [GraphCache(structures, config)[i] for i in range(count)], 3)
    _, batch = best(lambda: collate([kept[i] for i in range(count)]), 5)
    _, dropped = best(lambda: collate([dropping[i] for i in range(count)]), 5)
    return {"structures": count, "atoms_per_structure": len(structures[0]["pos"]),
            "graphs_ms_per_structure": 1e3 * build / count, "collate_ms_per_structure": 1e3 * batch / count,
            "dropout_ms_per_structure": 1e3 * dropped / count}  # fmt: skip


def best(work: Callable[[], object], turns: int) -> tuple[object, float]:
    """Result and least processor time of ``work``."""
    times = []
    for _ in range(turns):
        start = time.process_time()
        result = work()
        times.append(time.process_time() - start)
    return result, min(times)


def exponent(rows: list[dict], step: str, least: int = 1000) -> float | None:
    """Slope of log time against log atoms from ``least`` atoms on (below, the cost of the calls themselves shows)."""
    large = [row for row in rows if row["atoms"] >= 0.9 * least and row[step] > 0]
    points = [(np.log(row["atoms"]), np.log(row[step])) for row in large]
    return float(np.polyfit(*zip(*points), 1)[0]) if len(points) > 1 else None


def _print(name: str, found: dict) -> None:
    print(f"{name}: µs of the processor per atom")
    for row in found["sizes"]:
        times = "".join(f"  {step} {1e6 * row[step] / row['atoms']:7.2f}" for step in (*STEPS, "total"))
        peak = row["peak_bytes"] / row["atoms"] / 1e3
        print(f"  {row['atoms']:6d} atoms{times}   peak {peak:6.1f} kB an atom, "
              f"{row['main_edges'] / row['atoms']:.1f} main, {row['a2a_edges'] / row['atoms']:.1f} a2a edges an atom")
    slopes = ", ".join(f"{step} {value:.2f}" for step, value in found["exponent"].items() if value is not None)
    print(f"  exponent from 1000 atoms on: {slopes}")
