"""One training step of JMP-S: time, operations, memory.

Four heads, float32, 44.1 million parameters; each case in a process of its own, so that the peak memory is its own.
Times stand beside the speed of a matrix product that is measured in the same run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys

import torch

from jmp_lib.model import BackboneConfig
from tools.benchmarks import steps

HELP = "a training step of JMP-S: time, operations and peak memory"

# kind, number, gradient forces
CASES = {"molecules": ("aspirin", 8, False), "molecules-gradient": ("aspirin", 8, True), "slabs": ("slab", 4, False),
         "slabs-gradient": ("slab", 2, True), "slabs-gradient-4": ("slab", 4, True)}  # fmt: skip


def add_options(parser) -> None:
    """Options of this measurement."""
    parser.add_argument("--cases", default=",".join(CASES), help=f"with commas, of {', '.join(CASES)} (default: all)")
    parser.add_argument("--steps", type=int, default=3, help="timed steps of each case, after two others (default 3)")
    parser.add_argument("--threads", type=int, default=2, help="threads (default 2, as in the reference)")
    parser.add_argument("--allocator",
                        help="measure each case with this library in LD_PRELOAD as well (libtcmalloc_minimal.so.4)")


def run(args) -> dict:
    """Every case in turn; prints and returns the numbers."""
    names = [name.strip() for name in args.cases.split(",") if name.strip()]
    unknown = [name for name in names if name not in CASES]
    if unknown:
        raise SystemExit(f"--cases: {unknown[0]!r} is not one of {', '.join(CASES)}")
    print(f"{'':20s} {'s':>7s} {'best':>7s} {'cpu s':>7s} {'GFLOP':>7s} {'GFLOP/s':>8s} "
          f"{'x ideal':>8s} {'GB':>6s}")  # fmt: skip
    rows, others = {}, {}
    for name in names:
        rows[name] = compared(_in_a_process(name, args.steps, args.threads))
        _print(name, rows[name])
        if args.allocator:
            others[name] = compared(_in_a_process(name, args.steps, args.threads, args.allocator))
            _print("  other allocator", others[name])
    print("x ideal: time over (GFLOP of the step / speed of the edge product)")
    return {"threads": args.threads, "cases": rows,
            **({"allocator": args.allocator, "cases_with_allocator": others} if others else {})}  # fmt: skip


def compared(found: dict) -> dict:
    """Adds rates; times use the best step, because whatever else runs on the machine only adds."""
    seconds = found["best_seconds"]
    found["gflop_per_second"] = found["gflop"] / seconds
    found["times_ideal"] = seconds / (found["gflop"] / found["product_rates"]["edges"])
    return found


def _in_a_process(name: str, count: int, threads: int, allocator: str | None = None) -> dict:
    command = [sys.executable, "-m", __spec__.name, name, str(count), str(threads)]
    environment = {**os.environ, **({"LD_PRELOAD": allocator} if allocator else {})}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise RuntimeError(f"case {name} failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def one_case(name: str, count: int) -> dict:
    """Time, operations and peak memory of one case, and the speed of products before and after."""
    kind, number, gradient = CASES[name]
    batch = steps.make_batch(kind, number)
    step = steps.Step(steps.make_model(BackboneConfig(), gradient), batch)
    before = steps.product_rates()
    operations = steps.gflop(step)
    step()
    found = steps.timed(step, count)
    after = steps.product_rates()
    return {**found, "gflop": operations, "edges": batch["main_edge_index"].shape[1], "atoms": len(batch["batch"]),
            "parameters": sum(p.numel() for p in step.model.parameters()), "peak_gb": steps.peak_memory_gb(),
            "product_rates": {k: max(before[k], after[k]) for k in before}}  # fmt: skip


def _print(label: str, row: dict) -> None:
    print(f"{label:20s} {row['seconds']:7.2f} {row['best_seconds']:7.2f} {row['processor_seconds']:7.2f} "
          f"{row['gflop']:7.0f} {row['gflop_per_second']:8.0f} {row['times_ideal']:8.2f} {row['peak_gb']:6.2f}",
          flush=True)  # fmt: skip


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("name", choices=CASES)
    options.add_argument("steps", type=int)
    options.add_argument("threads", type=int)
    own = options.parse_args()
    torch.set_num_threads(own.threads)
    print(json.dumps(one_case(own.name, own.steps)))
