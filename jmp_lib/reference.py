"""Stored results of the official network: reading them, and running ours on the same input.

A folder holds ``golden_<width>_<structure>.npz`` (inputs, graphs, outputs; widths tiny, jmp_s,
jmp_l), ``golden_<width>_batch.npz``, ``golden_tiny_config.json``, ``golden_tiny_weights.safetensors``
and ``scale_factors_{small,large}.json``. ``check_reference`` compares.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from .graphs import GraphConfig, build_graphs, graphs_to_arrays
from .graphs.indices import count_members, pairs_by_key
from .model import BackboneConfig, PretrainModel
from .model.scaling import scale_modules

WIDTHS = ("tiny", "jmp_s", "jmp_l")
GRAPH_NAMES = {"main": "main", "a2a": "a2a", "a2ee2a": "a2ee2a", "qint": "qint"}
COLLINEAR = 1e-6  # sine of the angle between two unit vectors
AMBIGUOUS_GAP = 1e-5  # Å; below it, which neighbour a limit keeps is a matter of rounding


def recipe_weights(model: nn.Module, skip: set[str] = frozenset()) -> None:
    """Fill every parameter from a generator seeded with its own name (reproducible without a file)."""
    for name, parameter in model.named_parameters():
        if name in skip:
            continue
        rng = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
        v = rng.standard_normal(size=tuple(parameter.shape))
        if v.ndim == 1:
            v *= 0.1
        elif v.ndim == 3:
            v = (v - v.mean(axis=(0, 1), keepdims=True)) / np.sqrt(v.shape[0] * v.shape[1])
        elif name.startswith("backbone."):
            v = (v - v.mean(axis=1, keepdims=True)) / np.sqrt(v.shape[1])
        elif name.startswith("output."):
            v = v / np.sqrt(v.shape[1])
        parameter.data.copy_(torch.from_numpy(v.astype(np.float32)))


def load_scale_factors(model: nn.Module, factors: dict[str, float]) -> None:
    """Set the factors of the blocks that the model has; keys have no ``backbone.`` prefix."""
    for name, module in scale_modules(model).items():
        key = name.removeprefix("backbone.")
        if key not in factors:
            raise ValueError(f"the scale factors lack {key!r}")
        module.set(factors[key])


def reference_model(folder: Path, width: str) -> PretrainModel:
    """The model of one width with its stored or generated weights and fitted scale factors."""
    if width == "tiny":
        config = BackboneConfig.from_dict(json.loads((folder / "golden_tiny_config.json").read_text()))
    else:
        config = BackboneConfig.small() if width == "jmp_s" else BackboneConfig.large()
    model = PretrainModel(config, num_tasks=4, edge_dropout=0.1).eval()
    if width == "tiny":
        state = load_file(folder / "golden_tiny_weights.safetensors")
        missing, unexpected = model.load_state_dict(state, strict=False)
        # Radial centres and aliases need not be stored; everything else must be.
        absent = [n for n in missing if not n.endswith(("rbf.offset", "rbf.temps")) and ".seq_energy_pre." not in n]
        if absent or unexpected:
            raise ValueError(f"golden_tiny_weights.safetensors: missing {absent[:3]}, unexpected {unexpected[:3]}")
    else:
        recipe_weights(model)
        size = "small" if width == "jmp_s" else "large"
        load_scale_factors(model, json.loads((folder / f"scale_factors_{size}.json").read_text()))
    return model


def read_structure(data) -> tuple[dict, GraphConfig]:
    """Structure dict and graph settings of a golden file."""
    structure = {
        "pos": data["pos"], "cell": data["cell"].astype(np.float64), "pbc": data["pbc"],
        "atomic_numbers": data["atomic_numbers"].astype(np.int64), "tags": data["tags"].astype(np.int64),
    }  # fmt: skip
    config = GraphConfig(float(data["cutoff"]), int(data["max_neighbors"][0]), bool(data["pbc"].any()),
                         tuple(int(t) for t in data["qint_tags"]))  # fmt: skip
    return structure, config


def edge_order(edge_index: np.ndarray, offset: np.ndarray) -> np.ndarray:
    return np.lexsort((*offset.T[::-1], edge_index[0], edge_index[1]))


def same_edges(a, a_offset, b, b_offset) -> bool:
    if a.shape != b.shape:
        return False
    i, j = edge_order(a, a_offset), edge_order(b, b_offset)
    return bool((a[:, i] == b[:, j]).all() and (a_offset[i] == b_offset[j]).all())


def build_and_compare(data, graphs_of) -> tuple[dict | None, str]:
    """Structure with our graphs, and a word on how they compare with the stored ones.

    ``graphs_of``: the file that stores all four graphs of this structure (``data`` itself or the
    narrow file of the same name), or None. Where a neighbour limit cuts through equal distances the
    stored graphs are used instead; without them there is nothing to compare (None).
    """
    structure, config = read_structure(data)
    ours = build_graphs(structure, config)
    checks = [("main", "sym")]
    if graphs_of is not None:
        checks += [(name, name) for name in ("a2a", "a2ee2a", "qint")]
    source = graphs_of if graphs_of is not None else data
    wrong = [theirs for mine, theirs in checks
             if not same_edges(ours[f"{mine}_edge_index"], ours[f"{mine}_offset"],
                               source[f"{theirs}_edge_index"], source[f"{theirs}_cell_offset"])]  # fmt: skip
    counts = tuple(int(c) for c in data["counts"])
    if not wrong and count_members(ours, len(structure["pos"])) != counts:
        wrong = ["triplet and quadruplet counts"]
    if not wrong:
        return {**structure, "graphs": ours}, "equal"
    if float(data["min_neighbor_gap"]) < AMBIGUOUS_GAP and graphs_of is not None:
        given = {n: (graphs_of[f"{n}_edge_index"].astype(np.int64), graphs_of[f"{n}_cell_offset"].astype(np.int64))
                 for n in GRAPH_NAMES}  # fmt: skip
        arrays = graphs_to_arrays(given, len(structure["pos"]))
        word = "given (equal distances)" if count_members(arrays, len(structure["pos"])) == counts else "DIFFERENT counts"
        return {**structure, "graphs": arrays}, word
    if float(data["min_neighbor_gap"]) < AMBIGUOUS_GAP:
        return None, "equal distances at a neighbour limit, and the graphs are not stored"
    return {**structure, "graphs": ours}, "DIFFERENT " + ", ".join(wrong)


def has_collinear_quadruplets(structure: dict) -> bool:
    """Whether an edge c -> a or d -> b is exactly (anti)parallel to the middle bond b -> a."""
    pos, cell, graphs = structure["pos"].astype(np.float64), structure["cell"], structure["graphs"]

    def directions(name):
        s, t = graphs[f"{name}_edge_index"]
        delta = pos[t] - pos[s] - graphs[f"{name}_offset"] @ cell
        return s, t, delta / np.linalg.norm(delta, axis=1, keepdims=True)

    _, t, u = directions("main")
    q_source, q_target, u_p = directions("qint")
    for atom, bond_itself in ((q_source, "qin_back"), (q_target, "qout_same")):
        p, i = pairs_by_key(atom, t, len(pos))
        parallel = np.linalg.norm(np.cross(u[i], u_p[p]), axis=1) < COLLINEAR
        if parallel.sum() > graphs[bond_itself].shape[1]:
            return True
    return False


def run_model(model, batch: dict, dtype: torch.dtype, columns: int) -> dict[str, np.ndarray]:
    """All outputs of one forward pass; ``columns``: stored gradient forces (2 means tasks 0 and 2)."""
    model = model.to(dtype)
    pos = batch["pos"].double().requires_grad_(columns > 0)
    trace: list = []
    handle = model.backbone.register_forward_pre_hook(
        lambda module, args, kwargs: (args, {**kwargs, "trace": trace}), with_kwargs=True)
    out = model(batch, pos)
    handle.remove()
    result = {"h": out["h"], "x_f": out["x_f"], "energy": out["energy"], "forces": out["forces"], "m_init": trace[0]}
    for b, (h, m) in enumerate(trace[1:]):
        result |= {f"h_block{b}": h, f"m_block{b}": m}
    if columns:
        tasks = (0, 2) if columns == 2 else range(columns)
        result["grad_forces"] = torch.stack(
            [-torch.autograd.grad(out["energy"][:, t].sum(), pos, retain_graph=True)[0] for t in tasks], dim=-1)
    return {name: value.detach().numpy() for name, value in result.items()}


def relative_error(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-300))
