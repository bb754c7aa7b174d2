"""Time of the graphs and index sets of a batch, of batching, and of drawing dropped edges.

Milliseconds of the processor (what else runs on the machine does not count), one thread, median of several turns.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from ase import Atoms
from ase.build import fcc111, molecule

from jmp_lib.data.mini import load_mini
from jmp_lib.graphs import GraphCache, GraphConfig, build_graphs, collate
from jmp_lib.graphs.build import a2a_edges

HELP = "graphs and index sets of a batch"
STEPS = {"search": "neighbour search", "build": "graphs + indices", "collate": "batch of kept graphs",
         "dropout": "drop edges + graphs + batch"}  # fmt: skip


def add_options(parser) -> None:
    """Options of this measurement."""
    parser.add_argument("--turns", type=int, default=15, help="turns of each measurement (default 15)")


def run(args) -> dict:
    """Measures every batch; prints and returns the numbers."""
    rows = []
    heads = "".join(f"{text:>29s}" for text in STEPS.values())
    print(f"{'ms of the processor for a batch':34s}{heads}")
    for name, structures, config in batches():
        times = measure(structures, config, args.turns)
        row = {"batch": name, "milliseconds": times, "atoms": [len(s["pos"]) for s in structures],
               **edges(structures, config)}  # fmt: skip
        rows.append(row)
        print(f"{name:34s}" + "".join(f"{times[key]:29.2f}" for key in STEPS))
    return {"batches": rows}


def batches() -> list[tuple[str, list[dict], GraphConfig]]:
    """(name, structures, graphs) of each batch."""
    aspirin, frameworks = load_mini("rmd17-mini-aspirin"), load_mini("qmof-mini")
    molecules = [aspirin[i] for i in range(8)]
    framework = max((frameworks[i] for i in range(len(frameworks))), key=lambda s: len(s["pos"]))
    return [
        ("8 x aspirin, 8 Å", molecules, GraphConfig(8.0, 30, periodic=False)),
        ("4 x Cu(111)+CH3OH, 12 Å", [slab(seed) for seed in range(4)], GraphConfig(12.0, 30)),
        ("8 x aspirin, rMD17 (7 Å, 100)", molecules, GraphConfig(7.0, 100, periodic=False)),
        (f"framework, {len(framework['pos'])} atoms, 19 Å", [framework],
         GraphConfig(19.0, 30, reduce_above=((200, 10), (300, 5)))),
    ]  # fmt: skip


def slab(seed: int) -> dict:
    """64 Cu atoms in four layers and methanol, atoms moved by chance from their places; tags as in OC20."""
    rng = np.random.default_rng(seed)
    atoms = fcc111("Cu", (4, 4, 4), vacuum=10.0, periodic=True)
    tags = np.r_[atoms.get_tags() == 1, np.full(6, 2)].astype(np.int64)
    methanol = molecule("CH3OH")
    methanol.translate(atoms.positions[atoms.positions[:, 2].argmax()] + [0, 0, 2.0] - methanol.positions[1])
    atoms += methanol
    atoms.positions += rng.normal(0, 0.05, atoms.positions.shape)
    return structure_of(atoms, tags)


def structure_of(atoms: Atoms, tags: np.ndarray | int = 2) -> dict:
    """The fields that graphs need."""
    return {"pos": atoms.positions.astype(np.float32), "atomic_numbers": atoms.numbers, "cell": np.asarray(atoms.cell),
            "pbc": atoms.pbc, "tags": np.broadcast_to(tags, len(atoms)).copy()}  # fmt: skip


def measure(structures: list[dict], config: GraphConfig, turns: int) -> dict[str, float]:
    """Milliseconds of the processor for the batch, per step."""
    kept, dropping = GraphCache(structures, config), GraphCache(structures, config, 0.1, np.random.default_rng(0))
    rows = range(len(structures))
    return {
        "search": milliseconds(lambda: [a2a_edges(s, config) for s in structures], turns),
        "build": milliseconds(lambda: [build_graphs(s, config) for s in structures], turns),
        "collate": milliseconds(lambda: collate([kept[i] for i in rows]), turns),
        "dropout": milliseconds(lambda: collate([dropping[i] for i in rows]), turns),
    }


def milliseconds(work: Callable[[], object], turns: int) -> float:
    """Median processor time of ``work``, after one turn that is not counted."""
    times = []
    for _ in range(turns + 1):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return 1e3 * float(np.median(times[1:]))


def edges(structures: list[dict], config: GraphConfig) -> dict:
    """Edges of the batch and bytes that a cache keeps for it."""
    cache = GraphCache(structures, config)
    graphs = [cache[i]["graphs"] for i in range(len(cache))]
    count = {name: sum(g[f"{name}_edge_index"].shape[1] for g in graphs) for name in ("main", "a2ee2a", "qint", "a2a")}
    return {"edges": count, "bytes_kept": cache.bytes}
