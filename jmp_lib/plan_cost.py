"""What an update costs on this machine: a few real steps of the real networks, and a model in edges and quadruplets.

seconds = a + b * edges + c * quadruplets, bytes alike; a, b, c >= 0 from four batches for each kind of head
(property, gradient forces, direct forces). Two sizes of network: the small one is measured on all batches, the large
one once, with gradient forces, and the small one's models are multiplied by the ratio found there.
"""

from __future__ import annotations

import time
from dataclasses import astuple, dataclass, replace

import numpy as np
import torch
from scipy.optimize import nnls
from torch.overrides import TorchFunctionMode

from jmp_lib.data import mini
from jmp_lib.data.tasks import get_task
from jmp_lib.graphs import GraphCache, GraphConfig, build_graphs, collate
from jmp_lib.model import FinetuneModel, HeadSpec
from jmp_lib.settings import Profile

HEADS = {
    "property": [HeadSpec("y", "scalar", "sum")],
    "gradient_forces": [HeadSpec("energy", "energy"), HeadSpec("forces", "gradient_forces")],
    "direct_forces": [HeadSpec("energy", "energy"), HeadSpec("forces", "direct_forces")],
}
# embedded structures that are measured, and how many of them in a batch: few and many edges, few and many quadruplets
PROBES = (("rmd17_ethanol", 1), ("rmd17_ethanol", 6), ("rmd17_aspirin", 1), ("md22_ac-ala3-nhme", 1))
STATE_BYTES = 16  # of each parameter: weight, gradient, two moments of AdamW; float32


@dataclass(frozen=True)
class Size:
    """Mean of one structure: atoms, main edges, quadruplets, and bytes of its graphs in memory."""

    atoms: float
    edges: float
    quadruplets: float
    graph_bytes: float

    def times(self, factor: float) -> Size:
        """The size of ``factor`` such structures."""
        return Size(*(factor * value for value in astuple(self)))

    @staticmethod
    def mean(sizes: list[Size], weights: list[float] | None = None) -> Size:
        """Mean of several."""
        return Size(*(float(value) for value in np.average([astuple(s) for s in sizes], axis=0, weights=weights)))


def measure(structure, graph: GraphConfig) -> Size:
    """Size of one structure under the limits of ``graph``."""
    arrays, natoms = build_graphs(structure, graph), len(structure["pos"])
    main, qint = arrays["main_edge_index"], arrays["qint_edge_index"]
    degree = np.bincount(main[1], minlength=natoms).astype(float)
    quadruplets = float((degree[qint[0]] * degree[qint[1]]).sum())
    return Size(natoms, main.shape[1], quadruplets, sum(a.nbytes for a in arrays.values() if isinstance(a, np.ndarray)))


@dataclass(frozen=True)
class Cost:
    """Of one kind of head and one network: (a, b, c) of seconds and of bytes kept for the backward pass."""

    seconds: tuple[float, float, float]
    activations: tuple[float, float, float]
    evaluation: float  # seconds of a prediction over those of an update
    parameters: int
    measured: str

    def update_seconds(self, size: Size) -> float:
        """Seconds of one update on a batch of ``size``."""
        return float(np.dot(self.seconds, (1.0, size.edges, size.quadruplets)))

    def activation_bytes(self, size: Size) -> float:
        """Bytes that a batch of ``size`` keeps for its backward pass."""
        return float(np.dot(self.activations, (1.0, size.edges, size.quadruplets)))

    def state_bytes(self, ema: bool = False) -> float:
        """Weights, gradients and state of the optimiser; the average of the weights besides."""
        return self.parameters * (STATE_BYTES + 4 * ema)


def measure_costs(profile: Profile, device: torch.device, seconds: float = 60.0) -> dict[tuple[str, str], Cost]:
    """(size of network, kind of head) -> Cost, in about ``seconds``; probes that no longer fit in are left out."""
    began, probes = time.perf_counter(), probe_batches(profile, device)
    found: dict[tuple[str, str], Cost] = {}
    for number, kind in enumerate(HEADS):
        model, steps = new_network(profile, "small", kind, device), []
        for size, batch in probes:
            share = began + seconds * (number + 1) / 4  # a quarter is left for the large network
            if len(steps) < 3 or time.perf_counter() + 5 * steps[-1][1].seconds < share:
                steps.append((size, one_step(model, batch, device, warm=not steps)))
        found["small", kind] = fitted(steps, model)
    size, batch = probes[1]
    model, small = new_network(profile, "large", "gradient_forces", device), found["small", "gradient_forces"]
    step = one_step(model, batch, device, warm=False)
    slower, larger = step.seconds / small.update_seconds(size), step.activations / small.activation_bytes(size)
    grown = sum(p.numel() for p in model.parameters()) / small.parameters
    for kind in HEADS:
        small = found["small", kind]
        found["large", kind] = replace(
            small, seconds=tuple(slower * v for v in small.seconds), activations=tuple(larger * v for v in small.activations),
            parameters=round(grown * small.parameters), measured="small network times a measured ratio")
    return found


class PlainWeights(TorchFunctionMode):
    """Weights stay plain random numbers: to make those of a large network orthogonal takes minutes, and here time counts."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        return (args[0], args[0]) if function is torch.linalg.qr else function(*args, **(kwargs or {}))


def new_network(profile: Profile, size: str, kind: str, device: torch.device) -> FinetuneModel:
    """A network for timing."""
    with PlainWeights():
        return FinetuneModel(profile.models[size], HEADS[kind]).to(device)


def probe_batches(profile: Profile, device: torch.device) -> list[tuple[Size, dict]]:
    """(size, batch on the device) of the probe structures under the profile's graphs, small before large."""
    found = []
    for task_id, count in PROBES:
        task = get_task(task_id)
        structure, graph = mini.load_mini(task.mini_name)[0], profile.graphs[task.family]
        batch = collate([GraphCache([structure], graph)[0]] * count).to(device)
        found.append((measure(structure, graph).times(count), batch))
    return sorted(found, key=lambda pair: pair[0].edges)


@dataclass(frozen=True)
class Step:
    """One measured update: seconds, seconds of a prediction, bytes kept for the backward pass."""

    seconds: float
    evaluation: float
    activations: float


def one_step(model: FinetuneModel, batch: dict, device: torch.device, warm: bool = True) -> Step:
    """Forward, backward and AdamW of one batch, and a prediction. ``warm``: the first step is not counted."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)
    kept: dict[int, int] = {}
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            out = model(batch)
            loss = out["forces"].square().mean() if "forces" in out else out["y"].square().mean()
        loss.backward()
        optimizer.step()

    model.train()
    for _ in range(1 + warm):
        kept.clear()
        seconds = timed(step, device)
    model.eval()
    with torch.no_grad():
        evaluation = timed(lambda: model(batch), device)
    return Step(seconds, evaluation, float(sum(kept.values())))


def timed(function, device: torch.device) -> float:
    """Seconds of one call, with the GPU's work done."""
    finish = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    finish()
    began = time.perf_counter()
    function()
    finish()
    return time.perf_counter() - began


def fitted(steps: list[tuple[Size, Step]], model: torch.nn.Module) -> Cost:
    """The cost model through the measured steps; non-negative, relative errors count."""
    table = np.array([(1.0, size.edges, size.quadruplets) for size, _ in steps])
    largest = table.max(axis=0)

    def fit(values: list[float]) -> tuple[float, float, float]:
        found, _ = nnls(table / np.array(values)[:, None] / largest, np.ones(len(values)))
        return tuple(float(v) for v in found / largest)

    size, last = steps[-1]
    return Cost(fit([s.seconds for _, s in steps]), fit([s.activations for _, s in steps]), last.evaluation / last.seconds,
                sum(p.numel() for p in model.parameters()), f"{len(steps)} batches, up to {int(size.edges)} edges")
