"""MACE (Batatia et al., NeurIPS 2022) from scratch on the forces of a molecule, for a given time on one core.

The network is that of the ``mace-torch`` package: forces alone are fitted, as the arms do, at MACE's usual rate of 0.01.
Nothing was tuned, on no data.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch.nn import functional as F

from jmp_lib.results.timed import train_for

CUTOFF, CHANNELS, LAYERS, CORRELATION, MAX_ELL = 5.0, 32, 2, 2, 2  # Å; channels of each of l = 0 and 1
BATCH, RATE, BATCH_EVAL = 4, 0.01, 20
SETTINGS = {"cutoff": CUTOFF, "channels": CHANNELS, "layers": LAYERS, "correlation": CORRELATION, "max_ell": MAX_ELL,
            "batch_size": BATCH, "lr": RATE}


def available() -> bool:
    """Whether MACE can be imported."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import mace.modules  # noqa: F401
    except ImportError:
        return False
    return True


def train_and_predict(train, val, test, seconds: float, seed: int) -> tuple[np.ndarray, dict]:
    """Trains for ``seconds`` of updates on the forces of ``train``; ((ΣN, 3) test forces in eV/Å, what was done).

    train, val, test: sets of one molecule, free of cells. The dictionary: updates, seconds, n_parameters, best_val (eV/Å).
    """
    elements = sorted({int(z) for s in train for z in s["atomic_numbers"]})
    frames = {name: [_frame(s, elements) for s in part] for name, part in (("train", train), ("val", val), ("test", test))}
    rms = float(np.sqrt(np.mean(np.concatenate([f["forces"].ravel() for f in frames["train"]]) ** 2)))
    model = _network(elements, frames["train"], rms, seed)

    def loss(chosen: list[dict]) -> torch.Tensor:
        batch = _batch(chosen)
        return ((model(batch, training=True, compute_force=True)["forces"] - batch["forces"]) / rms).square().mean()

    about = train_for(seconds, model, frames["train"], loss, lambda: _mae(model, frames["val"]), batch=BATCH, rate=RATE, seed=seed)
    return _forces(model, frames["test"]), about


def _network(elements: list[int], frames: list[dict], rms: float, seed: int) -> torch.nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from e3nn import o3
        from mace import modules
    torch.manual_seed(seed)
    interaction = modules.interaction_classes["RealAgnosticResidualInteractionBlock"]
    return modules.ScaleShiftMACE(
        r_max=CUTOFF, num_bessel=8, num_polynomial_cutoff=5, max_ell=MAX_ELL, interaction_cls=interaction,
        interaction_cls_first=interaction, num_interactions=LAYERS, num_elements=len(elements),
        hidden_irreps=o3.Irreps(f"{CHANNELS}x0e + {CHANNELS}x1o"), MLP_irreps=o3.Irreps("16x0e"),
        atomic_energies=np.zeros((1, len(elements))), atomic_numbers=elements, correlation=CORRELATION, gate=F.silu,
        avg_num_neighbors=float(np.mean([f["edges"].shape[1] / len(f["pos"]) for f in frames])),
        atomic_inter_scale=rms, atomic_inter_shift=0.0)


def _frame(structure: dict, elements: list[int]) -> dict:
    """Positions (N,3), one-hot elements (N,T), forces (N,3) and edges (2,E) within the cutoff of one molecule."""
    pos = torch.as_tensor(np.asarray(structure["pos"], np.float32))
    near = (torch.cdist(pos, pos) < CUTOFF) & ~torch.eye(len(pos), dtype=torch.bool)
    kinds = torch.tensor([elements.index(int(z)) for z in structure["atomic_numbers"]])
    return {"pos": pos, "kinds": F.one_hot(kinds, len(elements)).float(), "edges": near.nonzero().t(),
            "forces": np.asarray(structure["forces"], np.float32)}


def _batch(frames: list[dict]) -> dict:
    """The dictionary that a MACE network reads, with the true forces."""
    sizes = torch.tensor([len(f["pos"]) for f in frames])
    ends = torch.cat([torch.zeros(1, dtype=torch.long), sizes.cumsum(0)])
    edges = torch.cat([f["edges"] + start for f, start in zip(frames, ends)], dim=1)
    none = torch.zeros(edges.shape[1], 3)
    return {"positions": torch.cat([f["pos"] for f in frames]), "node_attrs": torch.cat([f["kinds"] for f in frames]),
            "edge_index": edges, "shifts": none, "unit_shifts": none, "cell": torch.zeros(3 * len(frames), 3), "ptr": ends,
            "batch": torch.arange(len(frames)).repeat_interleave(sizes), "head": torch.zeros(len(frames), dtype=torch.long),
            "forces": torch.as_tensor(np.concatenate([f["forces"] for f in frames]))}


def _forces(model, frames: list[dict]) -> np.ndarray:
    parts = [_batch(frames[i : i + BATCH_EVAL]) for i in range(0, len(frames), BATCH_EVAL)]
    return np.concatenate([model(p, training=False, compute_force=True)["forces"].detach().numpy() for p in parts])


def _mae(model, frames: list[dict]) -> float:
    return float(np.abs(_forces(model, frames) - np.concatenate([f["forces"] for f in frames])).mean())
