"""What an update costs on this machine: a few real steps of the real networks, and a model in edges and quadruplets.

seconds = a + b * edges + c * quadruplets, bytes alike; a, b, c >= 0 from four batches for each kind of head
(property, gradient forces, direct forces). Two sizes of network: the small one is measured on all batches, the large
one once, with gradient forces, and the small one's models are multiplied by the ratio found there.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from unittest.mock import patch

import numpy as np
import torch
from scipy.optimize import nnls

from jmp_lib.data import mini
from jmp_lib.data.tasks import get_task
from jmp_lib.graphs import GraphCache, collate
from jmp_lib.model import FinetuneModel, HeadSpec
from jmp_lib.plan_sizes import Size, measure
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
class Cost:
    """Of one kind of head and one network: (a, b, c) of seconds and of bytes kept for the backward pass."""

    seconds: tuple[float, float, float]
    activations: tuple[float, float, float]
    evaluation: float  # seconds of a prediction over those of an update
    parameters: int
    measured: str

    def update_seconds(self, size: Size) -> float:
        """Seconds of one update on a batch of ``size``."""
        return float(np.dot(self.seconds, features(size)))

    def activation_bytes(self, size: Size) -> float:
        """Bytes that a batch of ``size`` keeps for its backward pass."""
        return float(np.dot(self.activations, features(size)))

    def state_bytes(self, ema: bool = False) -> float:
        """Weights, gradients and state of the optimiser; the average of the weights besides."""
        return self.parameters * (STATE_BYTES + 4 * ema)


def features(size: Size) -> np.ndarray:
    """(1, edges, quadruplets)."""
    return np.array([1.0, size.edges, size.quadruplets])


def measure_costs(profile: Profile, device: torch.device, seconds: float = 60.0) -> dict[tuple[str, str], Cost]:
    """(size of network, kind of head) -> Cost, in about ``seconds``; probes that no longer fit in are left out."""
    began, probes = time.perf_counter(), probe_batches(profile, device)
    found: dict[tuple[str, str], Cost] = {}
    for number, kind in enumerate(HEADS):
        model = new_network(profile, "small", kind, device)
        steps = []
        for size, batch in probes:
            share = began + seconds * (number + 1) / 4  # a quarter is left for the large network
            if len(steps) < 3 or time.perf_counter() + 5 * steps[-1][1].seconds < share:
                steps.append((size, one_step(model, batch, device, warm=not steps)))
        found["small", kind] = fitted(steps, model)
    kind, (size, batch) = "gradient_forces", probes[1]
    model, small = new_network(profile, "large", kind, device), found["small", kind]
    step = one_step(model, batch, device, warm=False)
    ratios = step.seconds / small.update_seconds(size), step.activations / small.activation_bytes(size)
    grown = sum(p.numel() for p in model.parameters()) / small.parameters
    for kind in HEADS:
        small = found["small", kind]
        found["large", kind] = replace(
            small,
            seconds=tuple(ratios[0] * v for v in small.seconds),
            parameters=round(grown * small.parameters),
            activations=tuple(ratios[1] * v for v in small.activations),
            measured="small network times a measured ratio",
        )
    return found


def new_network(profile: Profile, size: str, kind: str, device: torch.device) -> FinetuneModel:
    """A network for timing: plain random weights, because the orthogonal ones of a large network take minutes."""
    with patch.object(torch.nn.init, "orthogonal_", torch.nn.init.normal_):
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
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def fitted(steps: list[tuple[Size, Step]], model: torch.nn.Module) -> Cost:
    """The cost model through the measured steps; non-negative, relative errors count."""
    table = np.array([features(size) for size, _ in steps])
    largest = table.max(axis=0)

    def fit(values: list[float]) -> tuple[float, float, float]:
        weight = 1.0 / np.array(values)
        found, _ = nnls(table * weight[:, None] / largest, np.ones(len(values)))
        return tuple(float(v) for v in found / largest)

    last = steps[-1][1]
    return Cost(
        fit([s.seconds for _, s in steps]),
        fit([s.activations for _, s in steps]),
        last.evaluation / last.seconds,
        sum(p.numel() for p in model.parameters()),
        f"{len(steps)} batches, up to {int(steps[-1][0].edges)} edges",
    )


def as_plain(costs: dict[tuple[str, str], Cost]) -> dict:
    """The costs for JSON."""
    return {f"{size} {kind}": asdict(cost) for (size, kind), cost in costs.items()}
