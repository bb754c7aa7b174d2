"""What step, small and gpu measure alike: structures, models, and one training step of each."""

from __future__ import annotations

import re
import statistics
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.build import add_adsorbate, fcc111, molecule
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from jmp_lib.data.mini import load_mini
from jmp_lib.graphs import GraphConfig, build_graphs, collate
from jmp_lib.model import BackboneConfig, FinetuneModel, HeadSpec, PretrainModel
from jmp_lib.train.processes import keep_freed_memory


def aspirin(seed: int) -> Atoms:
    """21 atoms: the first frame of the rmd17-mini-aspirin that ships with the package, shaken by 0.05 Å."""
    first = load_mini("rmd17-mini-aspirin")[0]
    return _shaken(Atoms(first["atomic_numbers"], first["pos"]), seed)


def ethanol(seed: int) -> Atoms:
    """Nine atoms: ethanol, shaken by 0.05 Å."""
    return _shaken(molecule("CH3CH2OH"), seed)


def copper_slab(seed: int) -> Atoms:
    """Cu(111), 4 x 4 x 4 atoms, with methanol: 70 atoms; tags 0 below, 1 in the top layer, 2 adsorbate."""
    slab = fcc111("Cu", (4, 4, 4), vacuum=10.0)
    tags = np.where(slab.get_tags() == 1, 1, 0)
    add_adsorbate(slab, molecule("CH3OH"), 2.0, "ontop", mol_index=1)
    slab.pbc = True
    slab.set_tags(np.r_[tags, np.full(len(slab) - len(tags), 2)])
    return _shaken(slab, seed)


def _shaken(atoms: Atoms, seed: int) -> Atoms:
    rng = np.random.default_rng(seed)
    atoms.positions += rng.normal(0, 0.05, atoms.positions.shape)
    return atoms


MAKE = {"aspirin": aspirin, "ethanol": ethanol, "slab": copper_slab}
GRAPH = {"aspirin": GraphConfig(8.0, 30, False), "ethanol": GraphConfig(8.0, 30, False),
         "slab": GraphConfig(12.0, 30, True)}


def make_batch(kind: str, count: int, graph: GraphConfig | None = None) -> dict:
    """``count`` structures with graphs, normalised labels drawn at random."""
    rng, items = np.random.default_rng(0), []
    for seed in range(count):
        atoms = MAKE[kind](seed)
        s = {"pos": atoms.positions.astype(np.float32), "atomic_numbers": atoms.numbers.astype(np.int64),
             "cell": np.asarray(atoms.cell, dtype=np.float64), "pbc": np.asarray(atoms.pbc),
             "tags": atoms.get_tags() if kind == "slab" else np.full(len(atoms), 2),
             "fixed": np.zeros(len(atoms), dtype=bool), "energy": float(rng.normal()), "dataset_index": seed % 4,
             "forces": rng.normal(size=(len(atoms), 3)).astype(np.float32)}  # fmt: skip
        items.append({**s, "graphs": build_graphs(s, graph or GRAPH[kind])})
    return collate(items)


def make_model(config: BackboneConfig, gradient: bool) -> torch.nn.Module:
    """Direct forces: four energy and four force heads. Gradient forces: no force branch, one energy head."""
    torch.manual_seed(0)
    if gradient:
        return FinetuneModel(config, [HeadSpec("energy", "energy"), HeadSpec("forces", "gradient_forces")]).train()
    return PretrainModel(config).train()


class Step:
    """One update: forward, loss, backward, AdamW; allocator and optimiser as the trainer sets them."""

    def __init__(self, model: torch.nn.Module, batch: dict, capturable: bool = False):
        keep_freed_memory()
        self.model, self.batch = model, batch
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, betas=(0.9, 0.95), weight_decay=0.1, fused=True,
                                           capturable=capturable)  # fmt: skip

    def gradients(self, precise=nullcontext) -> None:
        """``precise``: makes the context of the forward pass (autocast)."""
        with precise():
            out = self.model(self.batch)
        energy, forces = self.batch["energy"], self.batch["forces"]
        found, found_forces = out["energy"], out["forces"]
        if found.ndim == 2:  # pre-training: a column for each data set, zero where a structure is from another
            found, found_forces = found.sum(-1), found_forces.sum(-1)
        loss = (found - energy).abs().mean() + (found_forces - forces + 1e-6).norm(dim=1).mean()
        loss.backward()

    def __call__(self, precise=nullcontext) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.gradients(precise)
        self.optimizer.step()


IN_PLACE = {torch.ops.aten.addmm_: torch.ops.aten.addmm, torch.ops.aten.baddbmm_: torch.ops.aten.baddbmm}


class CountOperators(TorchDispatchMode):
    """Counts every operator that reaches a kernel, and the operations of the matrix products.

    FlopCounterMode itself cannot count here: its hooks on modules do not allow ``torch.autograd.grad``.
    """

    def __init__(self):
        super().__init__()
        self.count = self.operations = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        result = func(*args, **(kwargs or {}))
        counted = IN_PLACE.get(func._overloadpacket, func._overloadpacket)
        if counted in flop_registry:
            self.operations += flop_registry[counted](*args, **(kwargs or {}), out_val=result)
        return result


def operators(step: Step) -> int:
    """Dispatched operators of the gradients of one step (without the optimiser)."""
    step.optimizer.zero_grad(set_to_none=True)
    with CountOperators() as counter:
        step.gradients()
    return counter.count


def gflop(step: Step) -> float:
    """Operations of the matrix products of one step, 10⁹, by the formulas of PyTorch's FlopCounterMode."""
    with CountOperators() as counter:
        step()
    return counter.operations / 1e9


def timed(work, repeats: int) -> dict:
    """Median and best seconds by the clock, median seconds of the processor (all threads)."""
    clock, processor = [], []
    for _ in range(repeats):
        start, cpu = time.perf_counter(), time.process_time()
        work()
        clock.append(time.perf_counter() - start)
        processor.append(time.process_time() - cpu)
    return {"seconds": statistics.median(clock), "best_seconds": min(clock),
            "processor_seconds": statistics.median(processor)}  # fmt: skip


def product_rates(repeats: int = 9) -> dict:
    """GFLOP/s of two float32 products (best of ``repeats``): 2048³ and the edge product 3346×512 by 512×512."""
    rates = {}
    for name, (rows, inner, columns) in {"square": (2048, 2048, 2048), "edges": (3346, 512, 512)}.items():
        a, b = torch.randn(rows, inner), torch.randn(inner, columns)
        out = torch.empty(rows, columns)
        torch.mm(a, b, out=out)
        best = timed(lambda a=a, b=b, out=out: torch.mm(a, b, out=out), repeats)["best_seconds"]
        rates[name] = 2e-9 * rows * inner * columns / best
    return rates


def peak_memory_gb() -> float:
    """Largest resident memory of this process so far, 10⁹ bytes (Linux)."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024 / 1e9
