"""Two networks beside ours, trained from scratch: MACE (Batatia et al., NeurIPS 2022; for rMD17) and SchNet (Schütt
et al., NeurIPS 2017).

They are those of ``mace-torch`` and torch_geometric; pairs and their images are those of this workbook's search,
targets normalised as those of the arms, forces minus the gradient of the energy and fitted alone, as the arms do.
Settings are usual ones; nothing was tuned. ``baselines`` makes their records and says how long they train.
"""

from __future__ import annotations

import copy
import math
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec

import numpy as np
import torch
from torch.nn import functional as F

from jmp_lib.data.normalise import denormalised
from jmp_lib.data.tasks import TaskData
from jmp_lib.graphs.neighbors import find_neighbors
from jmp_lib.settings import FinetuneSettings
from jmp_lib.train.finetuning import fit_normalisers

# cutoffs in Å, channels: of each of l = 0 and 1 (MACE), width of atoms and filters (SchNet)
NETWORKS = {
    "mace": {"cutoff": 5.0, "channels": 32, "layers": 2, "correlation": 2, "max_ell": 2, "batch_size": 4, "lr": 0.01},
    "schnet": {"cutoff": 5.0, "channels": 64, "layers": 3, "gaussians": 50, "batch_size": 8,
               "batch_size_forces": 4, "lr": 1e-3}}
VALIDATIONS, TOGETHER = 8, {"mace": 20, "schnet": 32}  # validations of a run; structures that are predicted together
INSTALL = "MACE is not installed: run `make mace`"


def train_network(name: str, data: TaskData, settings: FinetuneSettings, seconds: float,
                  seed: int) -> tuple[np.ndarray, dict]:
    """Trains a network of ``NETWORKS`` on one core for ``seconds`` of updates; test predictions in the label's unit,
    (S,) or (ΣN,3) for forces, and what was done, as of :func:`train_for` (best_val in the label's unit)."""
    if name == "mace" and not mace_available():
        raise RuntimeError(INSTALL)
    torch.set_num_threads(1)
    how, forces, normaliser = NETWORKS[name], data.task.is_force_task, fit_normalisers(data, settings)[data.label]
    frames = {part: [_frame(s, data.label, normaliser, how["cutoff"]) for s in getattr(data, part)]
              for part in ("train", "val", "test")}
    torch.manual_seed(seed)
    if name == "mace":
        model, output = _mace(frames["train"]), _mace_output
    else:
        model = _schnet("sum" if forces else settings.reduction or data.task.reduction)
        output = partial(_schnet_output, forces=forces)

    def loss(chosen: list[dict]) -> torch.Tensor:
        batch = _joined(chosen)
        return (output(model.train(), batch) - batch["target"]).square().mean()

    def predicted(part: str) -> torch.Tensor:
        size = TOGETHER[name]
        with torch.set_grad_enabled(forces):
            return torch.cat([output(model.eval(), _joined(frames[part][i : i + size])).detach()
                              for i in range(0, len(frames[part]), size)])

    def error() -> float:
        return float((predicted("val") - torch.cat([f["target"] for f in frames["val"]])).abs().mean()) * normaliser.std

    batch = how.get("batch_size_forces" if forces else "batch_size", how["batch_size"])
    about = train_for(seconds, model, frames["train"], loss, error, batch=batch, rate=how["lr"], seed=seed)
    return denormalised(predicted("test").double().numpy(), data.test, normaliser), about


def train_for(seconds: float, model: torch.nn.Module, frames: Sequence, loss: Callable[[list], torch.Tensor],
              error: Callable[[], float], *, batch: int, rate: float, seed: int) -> dict:
    """Updates of ``model`` for ``seconds`` of the processor (validation not counted), whatever else runs on the
    machine; the state with the best validation error is kept.

    Adam (amsgrad) at ``rate`` that falls by a cosine over the time given, gradients clipped at norm 10; ``loss`` of a
    list of ``batch`` frames. Returns updates, seconds, n_parameters and best_val.
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
    return {"updates": updates, "seconds": used,
            "n_parameters": sum(p.numel() for p in model.parameters()), "best_val": best}


def _frame(structure, label: str, normaliser, cutoff: float) -> dict:
    """z (N,), pos (N,3) Å, edges (2,E), shift (E,3) Å from a source atom to its image, and the normalised target."""
    numbers, pos, cell = (np.asarray(structure[key]) for key in ("atomic_numbers", "pos", "cell"))
    edges, offsets, _ = find_neighbors(pos, cell, np.asarray(structure["pbc"]), cutoff, periodic=True)
    target = normaliser.normalise(np.asarray(structure[label], float), numbers)
    return {"z": torch.as_tensor(numbers), "pos": torch.as_tensor(pos), "edges": torch.as_tensor(edges),
            "shift": torch.as_tensor(offsets @ cell, dtype=torch.float32),
            "target": torch.as_tensor(np.atleast_1d(target), dtype=torch.float32)}


def _joined(frames: list[dict]) -> dict:
    """The frames as one, with the number of the frame of each atom (``batch``) and where frames
    begin and end (``ptr``)."""
    sizes = torch.tensor([len(f["z"]) for f in frames])
    ptr = F.pad(sizes.cumsum(0), (1, 0))
    return {**{key: torch.cat([f[key] for f in frames]) for key in ("z", "pos", "shift", "target")}, "ptr": ptr,
            "edges": torch.cat([f["edges"] + start for f, start in zip(frames, ptr)], dim=1),
            "batch": torch.arange(len(frames)).repeat_interleave(sizes)}


def _schnet(readout: str) -> torch.nn.Module:
    from torch_geometric.nn.models import SchNet

    how = NETWORKS["schnet"]
    return SchNet(hidden_channels=how["channels"], num_filters=how["channels"], num_interactions=how["layers"],
                  readout=readout, num_gaussians=how["gaussians"], cutoff=how["cutoff"],
                  interaction_graph=lambda pairs, batch: pairs)  # pairs and distances come in the place of positions


def _schnet_output(model: torch.nn.Module, batch: dict, forces: bool) -> torch.Tensor:
    """Normalised property (S,) of the frames, or their normalised forces (ΣN,3)."""
    pos, (source, target) = batch["pos"].requires_grad_(forces), batch["edges"]
    distances = (pos[source] + batch["shift"] - pos[target]).norm(dim=-1)
    found = model(batch["z"], (batch["edges"], distances), batch["batch"])[:, 0]
    return -torch.autograd.grad(found.sum(), pos, create_graph=model.training)[0] if forces else found


def mace_available() -> bool:
    """Whether MACE is installed."""
    return find_spec("mace") is not None


def _mace(frames: list[dict]) -> torch.nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mace import modules  # isort: split
        from e3nn import o3  # after mace, which lets torch read its constants
    how, elements = NETWORKS["mace"], torch.cat([f["z"] for f in frames]).unique().tolist()
    interaction = modules.interaction_classes["RealAgnosticResidualInteractionBlock"]
    return modules.ScaleShiftMACE(
        r_max=how["cutoff"], num_bessel=8, num_polynomial_cutoff=5, max_ell=how["max_ell"], interaction_cls=interaction,
        interaction_cls_first=interaction, num_interactions=how["layers"], num_elements=len(elements),
        hidden_irreps=o3.Irreps("{0}x0e + {0}x1o".format(how["channels"])), MLP_irreps=o3.Irreps("16x0e"),
        atomic_energies=np.zeros((1, len(elements))), atomic_numbers=elements, correlation=how["correlation"],
        gate=F.silu, avg_num_neighbors=float(np.mean([f["edges"].shape[1] / len(f["pos"]) for f in frames])),
        atomic_inter_scale=1.0, atomic_inter_shift=0.0)


def _mace_output(model: torch.nn.Module, batch: dict) -> torch.Tensor:
    """Normalised forces (ΣN,3) of the frames."""
    kinds, count = torch.searchsorted(model.atomic_numbers, batch["z"]), len(batch["ptr"]) - 1
    given = {"positions": batch["pos"], "node_attrs": F.one_hot(kinds, len(model.atomic_numbers)).float(),
             "edge_index": batch["edges"], "shifts": -batch["shift"], "unit_shifts": 0 * batch["shift"],
             "cell": torch.zeros(3 * count, 3), "head": torch.zeros(count, dtype=torch.long),
             "ptr": batch["ptr"], "batch": batch["batch"]}
    return model(given, training=model.training, compute_force=True)["forces"]
