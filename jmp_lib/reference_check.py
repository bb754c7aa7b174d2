"""``python -m jmp_lib check-reference DIR``: this network against stored results of the official one.

A folder holds ``golden_<width>_<structure>.npz`` (inputs, graphs, outputs; widths tiny, jmp_s, jmp_l),
``golden_<width>_batch.npz``, ``golden_tiny_config.json``, ``golden_tiny_weights.safetensors`` and
``scale_factors_{small,large}.json``. Any of the widths may be absent, and any structures may be there.

Every error is the largest difference over the largest magnitude of the array. float64 decides: 1e-8 (gradient forces
1e-6); structures with exactly collinear quadruplets 1e-6 (1e-4), because the dihedral angle is undefined there. float32 is
compared with the stored float64 and must reach 2e-4 (5e-4), or twice the error of the official float32 result where that
is larger.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from jmp_lib.graphs import GraphConfig, build_graphs, collate, graphs_to_arrays
from jmp_lib.graphs.indices import count_members, pairs_by_key
from jmp_lib.model import BackboneConfig, PretrainModel
from jmp_lib.model.scaling import scale_modules

WIDTHS = ("tiny", "jmp_s", "jmp_l")
COLLINEAR = 1e-6  # sine of the angle between two unit vectors
AMBIGUOUS_GAP = 1e-5  # Å; below it, which neighbour a limit keeps is a matter of rounding
STORED_AS_FLOAT32 = 2e-6  # rounding of an array kept in float32
CLAMP_GRADIENT = 1e6  # larger gradients come from the clamp of an undefined dihedral alone
OUTPUTS = ("h", "x_f", "energy", "forces", "grad_forces")
DTYPES = {"f64": torch.float64, "f32": torch.float32}


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
                 for n in ("main", "a2a", "a2ee2a", "qint")}  # fmt: skip
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
    trace: list = []  # m⁰, then (h, m) of every block
    handles = [module.register_forward_hook(lambda module, given, out: trace.append(out))
               for module in (model.backbone.bases.edge_emb, *model.backbone.int_blocks)]
    out = model(batch, pos)
    for handle in handles:
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


def limits(name: str, dtype: str, stored: np.ndarray, collinear: bool, official_float32: float) -> float:
    gradient = name == "grad_forces"
    if dtype == "f32":
        return max(5e-4 if gradient else 2e-4, 2 * official_float32)
    limit = (1e-4 if gradient else 1e-6) if collinear else (1e-6 if gradient else 1e-8)
    return max(limit, STORED_AS_FLOAT32) if stored.dtype == np.float32 else limit


def compare(ours: dict, data, edges: tuple, dtype: str, collinear: bool) -> tuple[dict[str, float], list[str]]:
    """Errors by array name and the names past their limit. ``edges``: our and the stored edge order."""
    errors, bad = {}, []
    for key in sorted(k for k in data if k.startswith("f64_")):
        name = key[4:]
        if name not in ours:
            continue
        if dtype == "f32" and name not in OUTPUTS:
            continue
        theirs, value = data[key], ours[name]
        if name == "grad_forces" and collinear and np.abs(theirs).max() > CLAMP_GRADIENT:
            continue
        per_edge = name == "x_f" or name.startswith("m_")
        if per_edge:
            value, theirs = value[edges[0]], theirs[edges[1]]
        errors[name] = relative_error(value, theirs)
        official = official_float32_error(data, name)
        if not errors[name] <= limits(name, dtype, data[key], collinear, official):
            bad.append(name)
    return errors, bad


def official_float32_error(data, name: str) -> float:
    """Error of the stored official float32 array; of the worst stored one where this array is absent."""
    stored = {n: relative_error(data[f"f32_{n}"], data[f"f64_{n}"]) for n in OUTPUTS
              if f"f32_{n}" in data and f"f64_{n}" in data and data[f"f32_{n}"].shape == data[f"f64_{n}"].shape}
    plain = [error for n, error in stored.items() if n != "grad_forces"]
    return stored.get(name, max(plain, default=0.0))


def report(label: str, dtype: str, graphs: str, errors: dict[str, float], bad: list[str]) -> bool:
    worst = {n: errors[n] for n in OUTPUTS if n in errors}
    inner = [v for n, v in errors.items() if n not in OUTPUTS]
    if inner:
        worst["blocks"] = max(inner)
    text = "  ".join(f"{n} {v:.0e}" for n, v in worst.items())
    wrong = "DIFFERENT" in graphs
    verdict = "ok" if not bad and not wrong else "PAST THE LIMIT: " + ", ".join(bad or ["graphs"])
    print(f"{label:<32} {dtype}  graphs {graphs:<24} {text}  {verdict}", flush=True)
    return not bad and not wrong


def check_width(folder: Path, width: str) -> tuple[int, bool]:
    """Single structures, then the stored batch. Returns (comparisons made, all within limits)."""
    files = {p.stem.removeprefix(f"golden_{width}_"): p for p in sorted(folder.glob(f"golden_{width}_*.npz"))}
    batch_file = files.pop("batch", None)
    if not files:
        return 0, True
    model, verdicts = reference_model(folder, width), []
    items, stored = {}, {}

    def check(label: str, names: list[str], data: dict, word: str) -> None:
        parts, collinear = [items[n] for n in names], any(has_collinear_quadruplets(items[n]) for n in names)
        edges, batch = edge_orders(parts, [stored[n] for n in names], data["sym_edge_index"]), collate(parts)
        columns = data["f64_grad_forces"].shape[-1] if "f64_grad_forces" in data else 0
        for dtype, kind in DTYPES.items():
            errors, bad = compare(run_model(model, batch, kind, columns), data, edges, dtype, collinear)
            verdicts.append(report(label, dtype, word + ", collinear" * (collinear and len(names) == 1), errors, bad))

    for name, path in files.items():
        data = dict(np.load(path, allow_pickle=False))
        narrow = folder / f"golden_tiny_{name}.npz"
        graphs_of = data if "a2a_edge_index" in data else dict(np.load(narrow)) if narrow.exists() else None
        item, word = build_and_compare(data, graphs_of)
        if item is None:
            print(f"{width} {name}: not compared, {word}")
            continue
        items[name], stored[name] = item, data
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
    ours, theirs, first_edge, first_atom, rebuilt = [], [], 0, 0, []
    for item, data in zip(items, stored):
        graphs = item["graphs"]
        ours.append(first_edge + edge_order(graphs["main_edge_index"], graphs["main_offset"]))
        theirs.append(first_edge + edge_order(data["sym_edge_index"], data["sym_cell_offset"]))
        rebuilt.append(data["sym_edge_index"] + first_atom)
        first_edge += data["sym_edge_index"].shape[1]
        first_atom += len(item["pos"])
    if not np.array_equal(np.concatenate(rebuilt, axis=1), sym_edge_index):
        raise ValueError("the batch file's edges are not those of its single structures, in order")
    return np.concatenate(ours), np.concatenate(theirs)


def main(folder: str) -> int:
    """Checks everything in ``folder``; returns 0, or 1 past a limit. Raises ``ValueError`` where nothing can be compared."""
    path, done, good = Path(folder), 0, True
    if not path.is_dir():
        raise ValueError(f"{folder} is not a folder; give the folder that holds the golden_*.npz files")
    for width in WIDTHS:
        try:
            count, ok = check_width(path, width)
        except (OSError, KeyError, ValueError) as error:  # a missing or damaged file, named by the error
            raise ValueError(f"{width}: cannot be compared: {error}") from error
        done, good = done + count, good and ok
        if not count:
            print(f"{width}: no golden_{width}_*.npz here, not compared")
    if not done:
        raise ValueError(f"{folder} holds no golden_*.npz file, so nothing was compared")
    print(f"{done} comparisons: {'all within the limits' if good else 'SOME PAST THE LIMITS'}")
    return 0 if good else 1
