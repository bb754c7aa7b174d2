"""A training step of JMP-S and JMP-L on a GPU: time, structures per second, share of the bf16 peak, peak memory.

Without a GPU there is nothing to measure and the record says so. The float32 path is measured as it is.
"""

from __future__ import annotations

import time

import torch

from jmp_lib.model import BackboneConfig
from tools.benchmarks import steps

HELP = "a training step of JMP-S and JMP-L on a GPU (one sentence where there is none)"
SIZES = {"JMP-S": BackboneConfig.small, "JMP-L": BackboneConfig.large}
NO_GPU = "torch finds no CUDA device here, so the GPU table was not measured; run this on a machine with a GPU."


def add_options(parser) -> None:
    """Options of this measurement."""
    parser.add_argument("--structures", type=int, default=8, help="structures in a batch (default 8)")
    parser.add_argument("--steps", type=int, default=10, help="timed steps, after three others (default 10)")


def run(args) -> dict:
    """Every size, kind of structure and kind of force; prints and returns the numbers."""
    if not torch.cuda.is_available():
        print(NO_GPU)
        return {"rows": [], "why": NO_GPU}
    peak = _bf16_product_rate()
    print(f"{'':6s} {'':8s} {'forces':9s} {'ms':>8s} {'structures/s':>13s} {'of bf16 product':>16s} {'GB':>6s}")
    rows = []
    for size, config in SIZES.items():
        for kind in ("aspirin", "slab"):
            for gradient in (False, True):
                row = {"size": size, "kind": kind, "gradient_forces": gradient,
                       **_one(config(), kind, gradient, args.structures, args.steps)}  # fmt: skip
                row["share_of_bf16_product"] = row["gflop"] / row["seconds"] / peak
                rows.append(row)
                print(f"{size:6s} {kind:8s} {'gradient' if gradient else 'direct':9s} {1e3 * row['seconds']:8.1f} "
                      f"{args.structures / row['seconds']:13.1f} {row['share_of_bf16_product']:16.1%} "
                      f"{row['peak_gb']:6.1f}", flush=True)  # fmt: skip
    return {"structures": args.structures, "bf16_product_gflop_per_second": peak, "rows": rows}


def _one(config: BackboneConfig, kind: str, gradient: bool, structures: int, count: int) -> dict:
    step = steps.Step(steps.make_model(config, gradient).cuda(), steps.make_batch(kind, structures).cuda())
    operations = steps.gflop(step)
    for _ in range(2):
        step()
    torch.cuda.reset_peak_memory_stats()
    return {"seconds": _seconds(step, count), "gflop": operations, "peak_gb": torch.cuda.max_memory_allocated() / 1e9}


def _seconds(work, count: int) -> float:
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(count):
        work()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / count


def _bf16_product_rate() -> float:
    """GFLOP/s of a product of two 8192² bf16 matrices."""
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    _seconds(lambda: a @ a, 3)
    return 2e-9 * 8192**3 / _seconds(lambda: a @ a, 20)
