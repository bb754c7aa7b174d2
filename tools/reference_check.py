"""``python -m tools.reference_check DIR [DEVICE]``: this network (on the CPU, or for instance on cuda) against stored
results of the official one.

A folder holds ``golden_<width>_<structure>.npz`` (inputs, graphs, outputs; widths tiny, jmp_s, jmp_l),
``golden_<width>_batch.npz``, ``golden_tiny_config.json``, ``golden_tiny_weights.safetensors`` and
``scale_factors_{small,large}.json``. Any of the widths may be absent, and any structures may be there.

Every error is the largest difference over the largest magnitude of the array. float64 decides: 1e-8 (gradient forces
1e-6); structures with exactly collinear quadruplets 1e-6 (1e-4), because the dihedral angle is undefined there.
float32 is compared with the stored float64 and must reach 2e-4 (5e-4), or twice the error of the official float32
result where that is larger.
"""

from __future__ import annotations

import json
import sys
import zlib
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from jmp_lib.graphs import GraphConfig, build_graphs, collate, graphs_to_arrays
from jmp_lib.graphs.indices import pairs
from jmp_lib.graphs.neighbors import order_by_group
from jmp_lib.model import BackboneConfig, PretrainModel
from jmp_lib.model.scaling import set_factors

WIDTHS = {"tiny": None, "jmp_s": "small", "jmp_l": "large"}  # -> size of the published network
COLLINEAR = 1e-6  # sine of the angle between two unit vectors
AMBIGUOUS_GAP = 1e-5  # Å; below it, which neighbour a limit keeps is a matter of rounding
STORED_AS_FLOAT32 = 2e-6  # rounding of an array kept in float32
CLAMP_GRADIENT = 1e6  # larger gradients come from the clamp of an undefined dihedral alone
GRAPHS = ("main", "a2a", "a2ee2a", "qint")
OUTPUTS = ("h", "x_f", "energy", "forces", "grad_forces")
DTYPES = {"f64": torch.float64, "f32": torch.float32}


def recipe_weights(model: nn.Module) -> None:
    """Fill every parameter from a generator seeded with its own name (reproducible without a file)."""
    for name, parameter in model.named_parameters():
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


def reference_model(folder: Path, width: str) -> PretrainModel:
    """The model of one width with its stored or generated weights and fitted scale factors."""
    size = WIDTHS[width]
    if size:
        config = BackboneConfig() if size == "small" else BackboneConfig.large()
        model = PretrainModel(config, num_tasks=4, edge_dropout=0.1).eval()
        recipe_weights(model)
        factors = json.loads((folder / f"scale_factors_{size}.json").read_text())
        set_factors(model, {f"backbone.{name}": value for name, value in factors.items()})
        return model
    config = BackboneConfig.from_dict(json.loads((folder / "golden_tiny_config.json").read_text()))
    model = PretrainModel(config, num_tasks=4, edge_dropout=0.1).eval()
    missing, unexpected = model.load_state_dict(load_file(folder / "golden_tiny_weights.safetensors"), strict=False)
    # Radial centres and aliases need not be stored; everything else must be.
    absent = [n for n in missing if not n.endswith(("rbf.offset", "rbf.temps")) and ".seq_energy_pre." not in n]
    if absent or unexpected:
        raise ValueError(f"golden_tiny_weights.safetensors: missing {absent[:3]}, unexpected {unexpected[:3]}")
    return model


def count_members(arrays: dict, natoms: int) -> tuple[int, int, int, int]:
    """Numbers of (e2e, a2e, e2a) triplets and of quadruplets, from degrees and exceptions alone."""
    degree = np.bincount(arrays["main_edge_index"][1], minlength=natoms)
    ae_degree = np.bincount(arrays["a2ee2a_edge_index"][1], minlength=natoms)
    e2e = int((degree * (degree - 1)).sum())
    a2e = int((degree * ae_degree).sum()) - arrays["ae_same"].shape[1]
    source, target = arrays["qint_edge_index"]
    n_in = degree[source] - np.bincount(arrays["qin_back"][0], minlength=source.size)
    n_out = degree[target] - np.bincount(arrays["qout_same"][0], minlength=source.size)
    return e2e, a2e, a2e, int((n_in * n_out).sum()) - arrays["quad_same"].shape[1]


def edge_order(edge_index: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Places of the edges by target, source and offset."""
    return np.lexsort((*offset.T[::-1], edge_index[0], edge_index[1]))


def with_graphs(data: dict, stored: dict | None) -> tuple[dict, str]:
    """Structure with our graphs, and a word on how they compare with the stored ones.

    ``stored``: the file that holds all four graphs of this structure (``data`` itself or the narrow file of the same
    name), or None. Where a neighbour limit cuts through equal distances its graphs are used instead.
    """
    structure = {"pos": data["pos"], "cell": data["cell"].astype(np.float64), "pbc": data["pbc"],
                 "atomic_numbers": data["atomic_numbers"].astype(np.int64), "tags": data["tags"].astype(np.int64)}
    graphs = build_graphs(structure, GraphConfig(float(data["cutoff"]), int(data["max_neighbors"][0]),
                                                 bool(data["pbc"].any()), tuple(int(t) for t in data["qint_tags"])))
    natoms, counts, word = len(structure["pos"]), tuple(int(c) for c in data["counts"]), "equal"

    def edges(source: dict, name: str, offset: str) -> np.ndarray:
        index, cells = source[f"{name}_edge_index"], source[f"{name}_{offset}"]
        return np.column_stack([index.T, cells])[edge_order(index, cells)]

    theirs = {"main": "sym"} if stored is None else {"main": "sym", **{name: name for name in GRAPHS[1:]}}
    wrong = [name for mine, name in theirs.items()
             if not np.array_equal(edges(graphs, mine, "offset"), edges(stored or data, name, "cell_offset"))]
    if not wrong and count_members(graphs, natoms) != counts:
        wrong = ["triplet and quadruplet counts"]
    if wrong and stored is not None and float(data["min_neighbor_gap"]) < AMBIGUOUS_GAP:
        given = {n: tuple(stored[f"{n}_{part}"].astype(np.int64) for part in ("edge_index", "cell_offset"))
                 for n in GRAPHS}
        graphs, word = graphs_to_arrays(given, natoms), "given (equal distances)"
        wrong = ["counts"] if count_members(graphs, natoms) != counts else []
    return {**structure, "graphs": graphs}, f"DIFFERENT {', '.join(wrong)}" if wrong else word


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
        p, i = pairs(atom, order_by_group(t), np.bincount(t, minlength=len(pos)))
        parallel = np.linalg.norm(np.cross(u[i], u_p[p]), axis=1) < COLLINEAR
        if parallel.sum() > graphs[bond_itself].shape[1]:
            return True
    return False


def run_model(model, batch: dict, dtype: torch.dtype, columns: int, device: str = "cpu") -> dict[str, np.ndarray]:
    """All outputs of one forward pass; ``columns``: stored gradient forces (2 means tasks 0 and 2)."""
    model, batch = model.to(device, dtype), batch.to(device)
    pos = batch["pos"].double().requires_grad_(columns > 0)
    trace: list = []  # m⁰, then (h, m) of every block
    handles = [module.register_forward_hook(lambda module, given, out: trace.append(out))
               for module in (model.backbone.bases.edge_emb, *model.backbone.int_blocks)]
    out = model(batch, pos)
    for handle in handles:
        handle.remove()
    result = {**{name: out[name] for name in OUTPUTS if name in out}, "m_init": trace[0]}
    for b, (h, m) in enumerate(trace[1:]):
        result |= {f"h_block{b}": h, f"m_block{b}": m}
    if columns:
        tasks = (0, 2) if columns == 2 else range(columns)
        result["grad_forces"] = torch.stack(
            [-torch.autograd.grad(out["energy"][:, t].sum(), pos, retain_graph=True)[0] for t in tasks], dim=-1)
    return {name: value.detach().cpu().numpy() for name, value in result.items()}


def relative_error(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest difference over the largest magnitude."""
    return float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-300))


def compare(ours: dict, data: dict, edges: tuple, dtype: str, collinear: bool) -> dict[str, tuple[float, float]]:
    """Name of the array -> (error, its limit). ``edges``: our and the stored edge order.

    The official float32 error of an array that has none stored is the worst one of the others.
    """
    official = {n: relative_error(data[f"f32_{n}"], data[f"f64_{n}"]) for n in OUTPUTS
                if {f"f32_{n}", f"f64_{n}"} <= data.keys() and data[f"f32_{n}"].shape == data[f"f64_{n}"].shape}
    worst, found = max((error for n, error in official.items() if n != "grad_forces"), default=0.0), {}
    for name in OUTPUTS if dtype == "f32" else ours:
        if name not in ours or f"f64_{name}" not in data:
            continue
        value, theirs, gradient = ours[name], data[f"f64_{name}"], name == "grad_forces"
        if gradient and collinear and np.abs(theirs).max() > CLAMP_GRADIENT:
            continue
        if dtype == "f32":
            limit = max(5e-4 if gradient else 2e-4, 2 * official.get(name, worst))
        else:
            limit = (1e-6 if gradient else 1e-8) * (100 if collinear else 1)
            limit = max(limit, STORED_AS_FLOAT32) if theirs.dtype == np.float32 else limit
        if name == "x_f" or name.startswith("m_"):
            value, theirs = value[edges[0]], theirs[edges[1]]
        found[name] = relative_error(value, theirs), limit
    return found


def check_width(folder: Path, width: str, device: str = "cpu") -> tuple[int, bool]:
    """Single structures, then the stored batch. Returns (comparisons made, all within limits)."""
    files = {p.stem.removeprefix(f"golden_{width}_"): p for p in sorted(folder.glob(f"golden_{width}_*.npz"))}
    batch_file = files.pop("batch", None)
    if not files:
        return 0, True
    model, verdicts, items, stored = reference_model(folder, width), [], {}, {}

    def check(label: str, names: list[str], data: dict, word: str) -> None:
        parts = [items[name] for name in names]
        edges = edge_orders(parts, [stored[n] for n in names], data["sym_edge_index"])
        collinear = any(map(has_collinear_quadruplets, parts))
        columns = data["f64_grad_forces"].shape[-1] if "f64_grad_forces" in data else 0
        for dtype, kind in DTYPES.items():
            found = compare(run_model(model, collate(parts), kind, columns, device), data, edges, dtype, collinear)
            bad = ([name for name, (error, limit) in found.items() if not error <= limit]
                   + ["graphs"] * word.startswith("DIFFERENT"))
            shown = {name: found[name][0] for name in OUTPUTS if name in found}
            shown |= {"blocks": max(inner)} if (inner := [e for n, (e, _) in found.items() if n not in OUTPUTS]) else {}
            print(f"{label:<32} {dtype}  graphs {word + ', collinear' * (collinear and len(names) == 1):<24} "
                  + "  ".join(f"{name} {error:.0e}" for name, error in shown.items())
                  + ("  PAST THE LIMIT: " + ", ".join(bad) if bad else "  ok"), flush=True)
            verdicts.append(not bad)

    for name, path in files.items():
        data, narrow = dict(np.load(path, allow_pickle=False)), folder / f"golden_tiny_{name}.npz"
        graphs = (data if "a2a_edge_index" in data
                  else dict(np.load(narrow, allow_pickle=False)) if narrow.exists() else None)
        (items[name], word), stored[name] = with_graphs(data, graphs), data
        check(f"{width} {name}", [name], data, word)
    if batch_file is not None:
        data = dict(np.load(batch_file, allow_pickle=False))
        order = [str(n) for n in data["order"]]
        if absent := [n for n in order if n not in items]:
            print(f"{width} batch: skipped, the folder lacks the structures {', '.join(absent)}")
        else:
            check(f"{width} batch of {len(order)}", order, data, "equal")
    return len(verdicts), all(verdicts)


def edge_orders(items: list[dict], stored: list[dict], sym_edge_index: np.ndarray):
    """Our and the stored order of the edges of one or several structures: both sides list structure after structure."""
    ours, theirs, rebuilt, first_edge, first_atom = [], [], [], 0, 0
    for item, data in zip(items, stored):
        ours.append(first_edge + edge_order(item["graphs"]["main_edge_index"], item["graphs"]["main_offset"]))
        theirs.append(first_edge + edge_order(data["sym_edge_index"], data["sym_cell_offset"]))
        rebuilt.append(data["sym_edge_index"] + first_atom)
        first_edge += data["sym_edge_index"].shape[1]
        first_atom += len(item["pos"])
    if not np.array_equal(np.concatenate(rebuilt, axis=1), sym_edge_index):
        raise ValueError("the batch file's edges are not those of its single structures, in order")
    return np.concatenate(ours), np.concatenate(theirs)


def check_folder(path: Path, device: str = "cpu") -> bool:
    """Checks everything in ``path``: whether all is within the limits. ``ValueError`` where nothing can be compared."""
    done, good = 0, True
    if not path.is_dir():
        raise ValueError(f"{path} is not a folder; give the folder that holds the golden_*.npz files")
    for width in WIDTHS:
        try:
            count, ok = check_width(path, width, device)
        except (OSError, KeyError, ValueError) as error:  # a missing or damaged file, named by the error
            raise ValueError(f"{width}: cannot be compared: {error}") from error
        done, good = done + count, good and ok
        if not count:
            print(f"{width}: no golden_{width}_*.npz here, not compared")
    if not done:
        raise ValueError(f"{path} holds no golden_*.npz file, so nothing was compared")
    print(f"{done} comparisons: {'all within the limits' if good else 'SOME PAST THE LIMITS'}")
    return good


def main(arguments: list[str]) -> int:
    """Exit code: 0, 1 past a limit, 2 after a sentence on what cannot be compared."""
    try:
        if len(arguments) not in (1, 2):
            raise ValueError("give one folder, and a device if it is not the CPU: "
                             "python -m tools.reference_check DIR [DEVICE]")
        return 0 if check_folder(Path(arguments[0]), *arguments[1:]) else 1
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
