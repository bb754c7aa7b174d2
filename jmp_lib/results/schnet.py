"""SchNet (Schütt et al., NeurIPS 2017) from scratch on any of the tasks, for a given time on one core.

The network is that of torch_geometric; pairs and their images are those of this workbook's search. Targets are normalised as
those of the arms, forces are minus the gradient of the energy, and forces alone are fitted, as the arms do. Nothing was tuned,
on no data.
"""

from __future__ import annotations

import numpy as np
import torch

from jmp_lib.data.tasks import TaskData
from jmp_lib.graphs.neighbors import find_neighbors
from jmp_lib.results.timed import train_for
from jmp_lib.settings import FinetuneSettings
from jmp_lib.train.finetuning import fit_normalisers
from jmp_lib.train.normalise import denormalised

CUTOFF, CHANNELS, LAYERS, GAUSSIANS = 5.0, 64, 3, 50  # Å; width of atoms and filters
BATCH, BATCH_FORCES, RATE, BATCH_EVAL = 8, 4, 1e-3, 32
SETTINGS = {"cutoff": CUTOFF, "channels": CHANNELS, "layers": LAYERS, "gaussians": GAUSSIANS, "batch_size": BATCH,
            "batch_size_forces": BATCH_FORCES, "lr": RATE}


def train_and_predict(data: TaskData, settings: FinetuneSettings, seconds: float, seed: int) -> tuple[np.ndarray, dict]:
    """Trains for ``seconds`` of updates; (test predictions in the label's unit, (S,) or (ΣN,3) for forces, what was done).

    The dictionary as of :func:`jmp_lib.results.timed.train_for`; best_val in the label's unit.
    """
    from torch_geometric.nn.models import SchNet

    forces, normaliser = data.task.is_force_task, fit_normalisers(data, settings)[data.label]
    frames = {name: [_frame(s, data.label, normaliser) for s in part]
              for name, part in (("train", data.train), ("val", data.val), ("test", data.test))}
    torch.manual_seed(seed)
    readout = "sum" if forces else settings.reduction or data.task.reduction
    model = SchNet(hidden_channels=CHANNELS, num_filters=CHANNELS, num_interactions=LAYERS, num_gaussians=GAUSSIANS, cutoff=CUTOFF,
                   interaction_graph=_same, readout=readout)

    def loss(batch: list[dict]) -> torch.Tensor:
        return (_output(model, batch, forces) - torch.cat([f["target"] for f in batch])).square().mean()

    def predicted(part: str) -> torch.Tensor:
        batches = [frames[part][i : i + BATCH_EVAL] for i in range(0, len(frames[part]), BATCH_EVAL)]
        with torch.set_grad_enabled(forces):
            return torch.cat([_output(model, batch, forces).detach() for batch in batches])

    def error() -> float:
        return float((predicted("val") - torch.cat([f["target"] for f in frames["val"]])).abs().mean()) * normaliser.std

    about = train_for(seconds, model, frames["train"], loss, error, batch=BATCH_FORCES if forces else BATCH, rate=RATE, seed=seed)
    return denormalised(predicted("test").double().numpy(), data.test, normaliser), about


def _same(pairs: tuple, _batch) -> tuple:
    """The pairs and distances that are handed to the network in place of positions."""
    return pairs


def _frame(structure, label: str, normaliser) -> dict:
    """z (N,), pos (N,3) Å, edges (2,E), shift (E,3) Å from a source atom to its image, and the normalised target."""
    numbers, pos, cell = (np.asarray(structure[key]) for key in ("atomic_numbers", "pos", "cell"))
    edges, offsets, _ = find_neighbors(pos, cell, np.asarray(structure["pbc"]), CUTOFF, periodic=True)
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
