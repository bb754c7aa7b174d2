"""``python -m jmp_lib check-reference DIR``: this network against stored results of the official one.

Every error is the largest difference over the largest magnitude of the array. float64 decides:
1e-8 (gradient forces 1e-6); structures with exactly collinear quadruplets 1e-6 (1e-4), because the
dihedral angle is undefined there. float32 is compared with the stored float64 and must reach 2e-4
(5e-4), or twice the error of the official float32 result where that is larger. Any of the widths
may be absent, and any structures may be there.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from .graphs import collate
from .reference import (
    WIDTHS,
    build_and_compare,
    edge_order,
    has_collinear_quadruplets,
    reference_model,
    relative_error,
    run_model,
)

STORED_AS_FLOAT32 = 2e-6  # rounding of an array kept in float32
CLAMP_GRADIENT = 1e6  # larger gradients come from the clamp of an undefined dihedral alone
OUTPUTS = ("h", "x_f", "energy", "forces", "grad_forces")


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
    model = reference_model(folder, width)
    items, stored, done, good = {}, {}, 0, True
    for name, path in files.items():
        data = dict(np.load(path, allow_pickle=False))
        narrow = folder / f"golden_tiny_{name}.npz"
        graphs_of = data if "a2a_edge_index" in data else dict(np.load(narrow)) if narrow.exists() else None
        item, word = build_and_compare(data, graphs_of)
        if item is None:
            print(f"{width} {name}: not compared, {word}")
            continue
        collinear = has_collinear_quadruplets(item)
        word += ", collinear" if collinear else ""
        items[name], stored[name] = item, data
        graphs = item["graphs"]
        edges = (edge_order(graphs["main_edge_index"], graphs["main_offset"]),
                 edge_order(data["sym_edge_index"], data["sym_cell_offset"]))  # fmt: skip
        batch = collate([item])
        for dtype in ("f64", "f32"):
            ours = run_model(model, batch, torch.float64 if dtype == "f64" else torch.float32,
                             data["f64_grad_forces"].shape[-1] if "f64_grad_forces" in data else 0)  # fmt: skip
            errors, bad = compare(ours, data, edges, dtype, collinear)
            good &= report(f"{width} {name}", dtype, word, errors, bad)
            done += 1
    if batch_file is not None:
        data = dict(np.load(batch_file, allow_pickle=False))
        order = [str(n) for n in data["order"]]
        absent = [n for n in order if n not in items]
        if absent:
            print(f"{width} batch: skipped, the folder lacks the structures {', '.join(absent)}")
            return done, good
        batch = collate([items[n] for n in order])
        edges = batch_edges([items[n] for n in order], [stored[n] for n in order], data["sym_edge_index"])
        collinear = any(has_collinear_quadruplets(items[n]) for n in order)
        for dtype in ("f64", "f32"):
            columns = data["f64_grad_forces"].shape[-1] if "f64_grad_forces" in data else 0
            ours = run_model(model, batch, torch.float64 if dtype == "f64" else torch.float32, columns)
            errors, bad = compare(ours, data, edges, dtype, collinear)
            good &= report(f"{width} batch of {len(order)}", dtype, "equal", errors, bad)
            done += 1
    return done, good


def batch_edges(items: list[dict], stored: list[dict], sym_edge_index: np.ndarray):
    """Edge orders of a batch: both sides list structure after structure."""
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
    """Check everything in ``folder``; returns the exit code."""
    path = Path(folder)
    if not path.is_dir():
        print(f"{folder} is not a folder; give the folder that holds the golden_*.npz files", file=sys.stderr)
        return 2
    done, good = 0, True
    for width in WIDTHS:
        try:
            count, ok = check_width(path, width)
        except (OSError, KeyError, ValueError) as error:  # a missing or damaged file, named by the error
            print(f"{width}: cannot be compared: {error}", file=sys.stderr)
            return 2
        done, good = done + count, good and ok
        if not count:
            print(f"{width}: no golden_{width}_*.npz here, not compared")
    if not done:
        print(f"{folder} holds no golden_*.npz file, so nothing was compared", file=sys.stderr)
        return 2
    print(f"{done} comparisons: {'all within the limits' if good else 'SOME PAST THE LIMITS'}")
    return 0 if good else 1
