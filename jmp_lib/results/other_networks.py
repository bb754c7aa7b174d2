"""MACE (Batatia et al., NeurIPS 2022) and SchNet (Schütt et al., NeurIPS 2017) from scratch on a task, for a given time on one core.

The networks are those of ``mace-torch`` (forces of a molecule) and torch_geometric (any task; pairs and their images are those of
this workbook's search, targets normalised as those of the arms, forces minus the gradient of the energy). Forces alone are fitted,
as the arms do. Settings are usual ones; nothing was tuned, on no data.
"""

from __future__ import annotations

import copy
import math
import time
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.nn import functional as F

from jmp_lib.data.tasks import TaskData
from jmp_lib.graphs.neighbors import find_neighbors
from jmp_lib.settings import FinetuneSettings
from jmp_lib.train.finetuning import fit_normalisers
from jmp_lib.train.normalise import denormalised

# cutoffs in Å; channels: of each of l = 0 and 1 (MACE), width of atoms and filters (SchNet)
MACE = {"cutoff": 5.0, "channels": 32, "layers": 2, "correlation": 2, "max_ell": 2, "batch_size": 4, "lr": 0.01}
SCHNET = {"cutoff": 5.0, "channels": 64, "layers": 3, "gaussians": 50, "batch_size": 8, "batch_size_forces": 4, "lr": 1e-3}
VALIDATIONS, TOGETHER = 8, {"mace": 20, "schnet": 32}  # validations of a run; structures that are predicted together


def train_for(seconds: float, model: torch.nn.Module, frames: Sequence, loss: Callable[[list], torch.Tensor],
              error: Callable[[], float], *, batch: int, rate: float, seed: int) -> dict:
    """Updates of ``model`` for ``seconds`` of the processor (validation not counted), whatever else runs on the machine; the state
    with the best validation error is kept.

    Adam (amsgrad) at ``rate`` that falls by a cosine over the time given, gradients clipped at norm 10; ``loss`` of a list of
    ``batch`` frames. Returns updates, seconds, n_parameters and best_val.
    """
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, amsgrad=True)
    generator, order, updates, used, validated = torch.Generator().manual_seed(seed), [], 0, 0.0, 0
    best, state = math.inf, None
    while used < seconds:
        began = time.process_time()
        if len(order) < batch:
            order = torch.randperm(len(frames), generator=generator).tolist()
        for group in optimizer.param_groups:
            group["lr"] = rate * (0.05 + 0.475 * (1 + math.cos(math.pi * used / seconds)))
        optimizer.zero_grad()
        loss([frames[order.pop()] for _ in range(min(batch, len(order)))]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        updates, used = updates + 1, used + time.process_time() - began
        if used >= seconds * (validated + 1) / VALIDATIONS or used >= seconds:
            validated = int(used / seconds * VALIDATIONS)
            value = error()
            if state is None or value < best:
                best, state = value, copy.deepcopy(model.state_dict())
    model.load_state_dict(state)
    return {"updates": updates, "seconds": used, "n_parameters": sum(p.numel() for p in model.parameters()), "best_val": best}


def mace_available() -> bool:
    """Whether MACE can be imported."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import mace.modules  # noqa: F401
    except ImportError:
        return False
    return True


def mace(data: TaskData, settings: FinetuneSettings, seconds: float, seed: int) -> tuple[np.ndarray, dict]:
    """Trains for ``seconds`` of updates; ((ΣN,3) test forces in eV/Å, what was done as of :func:`train_for`, best_val in eV/Å)."""
    elements = sorted({int(z) for s in data.train for z in s["atomic_numbers"]})
    parts = {name: [_molecule(s, elements) for s in getattr(data, name)] for name in ("train", "val", "test")}
    rms = float(np.sqrt(np.mean(np.concatenate([f["forces"].ravel() for f in parts["train"]]) ** 2)))
    model = _mace_network(elements, parts["train"], rms, seed)

    def loss(chosen: list[dict]) -> torch.Tensor:
        batch = _mace_batch(chosen)
        return ((model(batch, training=True, compute_force=True)["forces"] - batch["forces"]) / rms).square().mean()

    def forces(part: str) -> np.ndarray:
        return np.concatenate([model(_mace_batch(frames), training=False, compute_force=True)["forces"].detach().numpy()
                               for frames in _in_batches(parts[part], TOGETHER["mace"])])

    def error() -> float:
        return float(np.abs(forces("val") - np.concatenate([f["forces"] for f in parts["val"]])).mean())

    about = train_for(seconds, model, parts["train"], loss, error, batch=MACE["batch_size"], rate=MACE["lr"], seed=seed)
    return forces("test"), about


def _mace_network(elements: list[int], frames: list[dict], rms: float, seed: int) -> torch.nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from e3nn import o3
        from mace import modules
    torch.manual_seed(seed)
    interaction = modules.interaction_classes["RealAgnosticResidualInteractionBlock"]
    return modules.ScaleShiftMACE(
        r_max=MACE["cutoff"], num_bessel=8, num_polynomial_cutoff=5, max_ell=MACE["max_ell"], interaction_cls=interaction,
        interaction_cls_first=interaction, num_interactions=MACE["layers"], num_elements=len(elements),
        hidden_irreps=o3.Irreps("{0}x0e + {0}x1o".format(MACE["channels"])), MLP_irreps=o3.Irreps("16x0e"),
        atomic_energies=np.zeros((1, len(elements))), atomic_numbers=elements, correlation=MACE["correlation"], gate=F.silu,
        avg_num_neighbors=float(np.mean([f["edges"].shape[1] / len(f["pos"]) for f in frames])),
        atomic_inter_scale=rms, atomic_inter_shift=0.0)


def _molecule(structure: dict, elements: list[int]) -> dict:
    """Positions (N,3), one-hot elements (N,T), forces (N,3) and edges (2,E) within MACE's cutoff of one molecule."""
    pos = torch.as_tensor(np.asarray(structure["pos"], np.float32))
    near = (torch.cdist(pos, pos) < MACE["cutoff"]) & ~torch.eye(len(pos), dtype=torch.bool)
    kinds = torch.tensor([elements.index(int(z)) for z in structure["atomic_numbers"]])
    return {"pos": pos, "kinds": F.one_hot(kinds, len(elements)).float(), "edges": near.nonzero().t(),
            "forces": np.asarray(structure["forces"], np.float32)}


def _mace_batch(frames: list[dict]) -> dict:
    """The dictionary that a MACE network reads, with the true forces."""
    sizes = torch.tensor([len(f["pos"]) for f in frames])
    ends = torch.cat([torch.zeros(1, dtype=torch.long), sizes.cumsum(0)])
    edges = torch.cat([f["edges"] + start for f, start in zip(frames, ends)], dim=1)
    none = torch.zeros(edges.shape[1], 3)
    return {"positions": torch.cat([f["pos"] for f in frames]), "node_attrs": torch.cat([f["kinds"] for f in frames]),
            "edge_index": edges, "shifts": none, "unit_shifts": none, "cell": torch.zeros(3 * len(frames), 3), "ptr": ends,
            "batch": torch.arange(len(frames)).repeat_interleave(sizes), "head": torch.zeros(len(frames), dtype=torch.long),
            "forces": torch.as_tensor(np.concatenate([f["forces"] for f in frames]))}


def schnet(data: TaskData, settings: FinetuneSettings, seconds: float, seed: int) -> tuple[np.ndarray, dict]:
    """Trains for ``seconds`` of updates; (test predictions in the label's unit, (S,) or (ΣN,3) for forces, what was done).

    The dictionary as of :func:`train_for`; best_val in the label's unit.
    """
    from torch_geometric.nn.models import SchNet

    forces, normaliser = data.task.is_force_task, fit_normalisers(data, settings)[data.label]
    frames = {name: [_frame(s, data.label, normaliser) for s in part]
              for name, part in (("train", data.train), ("val", data.val), ("test", data.test))}
    torch.manual_seed(seed)
    readout = "sum" if forces else settings.reduction or data.task.reduction
    model = SchNet(hidden_channels=SCHNET["channels"], num_filters=SCHNET["channels"], num_interactions=SCHNET["layers"],
                   num_gaussians=SCHNET["gaussians"], cutoff=SCHNET["cutoff"], interaction_graph=_same, readout=readout)

    def loss(batch: list[dict]) -> torch.Tensor:
        return (_output(model, batch, forces) - torch.cat([f["target"] for f in batch])).square().mean()

    def predicted(part: str) -> torch.Tensor:
        with torch.set_grad_enabled(forces):
            return torch.cat([_output(model, batch, forces).detach() for batch in _in_batches(frames[part], TOGETHER["schnet"])])

    def error() -> float:
        return float((predicted("val") - torch.cat([f["target"] for f in frames["val"]])).abs().mean()) * normaliser.std

    batch = SCHNET["batch_size_forces" if forces else "batch_size"]
    about = train_for(seconds, model, frames["train"], loss, error, batch=batch, rate=SCHNET["lr"], seed=seed)
    return denormalised(predicted("test").double().numpy(), data.test, normaliser), about


def _in_batches(frames: list[dict], size: int) -> list[list[dict]]:
    return [frames[i : i + size] for i in range(0, len(frames), size)]


def _same(pairs: tuple, _batch) -> tuple:
    """The pairs and distances that are handed to the network in place of positions."""
    return pairs


def _frame(structure, label: str, normaliser) -> dict:
    """z (N,), pos (N,3) Å, edges (2,E), shift (E,3) Å from a source atom to its image, and the normalised target."""
    numbers, pos, cell = (np.asarray(structure[key]) for key in ("atomic_numbers", "pos", "cell"))
    edges, offsets, _ = find_neighbors(pos, cell, np.asarray(structure["pbc"]), SCHNET["cutoff"], periodic=True)
    target = normaliser.normalise(np.asarray(structure[label], float), numbers)
    return {"z": torch.as_tensor(numbers), "pos": torch.as_tensor(pos), "edges": torch.as_tensor(edges),
            "shift": torch.as_tensor(offsets @ cell, dtype=torch.float32),
            "target": torch.as_tensor(np.atleast_1d(target), dtype=torch.float32)}


def _output(model: torch.nn.Module, frames: list[dict], forces: bool) -> torch.Tensor:
    """Normalised property (S,) of the frames, or their normalised forces (ΣN,3)."""
    sizes = torch.tensor([len(f["z"]) for f in frames])
    starts = (sizes.cumsum(0) - sizes).tolist()
    source, target = torch.cat([f["edges"] + start for f, start in zip(frames, starts)], dim=1)
    pos = torch.cat([f["pos"] for f in frames]).requires_grad_(forces)
    distances = (pos[source] + torch.cat([f["shift"] for f in frames]) - pos[target]).norm(dim=-1)
    found = model(torch.cat([f["z"] for f in frames]), (torch.stack([source, target]), distances),
                  torch.arange(len(frames)).repeat_interleave(sizes))[:, 0]
    return -torch.autograd.grad(found.sum(), pos, create_graph=model.training)[0] if forces else found
