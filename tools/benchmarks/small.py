"""A training step of narrow networks, where the number of operator calls decides and not their size.

``narrow`` is JMP-S with an eighth of the widths, 2 blocks and 32 radial functions, on 8 molecules of 9 atoms (8 Å,
n = 30); small and large are the networks of the profile mini on 8 molecules with its graphs.
"""

from __future__ import annotations

import statistics
import time

import torch

from jmp_lib.graphs import GraphConfig
from jmp_lib.model import BackboneConfig
from jmp_lib.settings import load_profile
from tools.benchmarks import steps

HELP = "a training step of narrow networks: milliseconds and dispatched operators"

NARROW = BackboneConfig(
    emb_size_atom=32, emb_size_edge=64, emb_size_trip_in=8, emb_size_trip_out=8, emb_size_quad_in=4,
    emb_size_quad_out=4, emb_size_aint_in=8, emb_size_aint_out=8, emb_size_rbf=2, emb_size_cbf=2,
    emb_size_sbf=4, num_radial=32, num_blocks=2,
)  # fmt: skip
# Milliseconds of forward, loss and backward that a step may take, by whether forces are gradients.
TARGETS = {False: 60.0, True: 140.0}


def add_options(parser) -> None:
    """Options of this measurement."""
    parser.add_argument("--steps", type=int, default=20,
                        help="timed steps of each network, after three others (default 20)")
    parser.add_argument("--threads", type=int, default=1, help="threads (default 1, as in the profile mini)")


def run(args) -> dict:
    """Every network with direct and gradient forces; prints and returns the numbers."""
    torch.set_num_threads(args.threads)
    mini = load_profile("mini")
    molecules = GraphConfig(6.0, 8, False)
    networks = {"narrow": (NARROW, None), **{name: (mini.models[name], molecules) for name in ("small", "large")}}
    print(f"{'':10s} {'forces':10s} {'ms':>7s} {'best':>7s} {'optimiser':>10s} {'operators':>10s}")
    rows = []
    for name, (config, graph) in networks.items():
        batch = steps.make_batch("ethanol", 8, graph)
        for gradient in (False, True):
            rows.append({"network": name, **one_network(config, gradient, batch, args.steps)})
            r = rows[-1]
            print(f"{name:10s} {'gradient' if gradient else 'direct':10s} {r['ms']:7.1f} {r['best_ms']:7.1f} "
                  f"{r['optimiser_ms']:10.1f} {r['operators']:10d}", flush=True)
    print("ms: processor time of forward, loss and backward")
    return {"threads": args.threads,
            "targets_ms": {"direct": TARGETS[False], "gradient": TARGETS[True]}, "networks": rows}


def one_network(config: BackboneConfig, gradient: bool, batch: dict, count: int) -> dict:
    """Processor milliseconds (median and best) of the gradients of a step and of its optimiser; operators."""
    step = steps.Step(steps.make_model(config, gradient), batch)
    for _ in range(3):
        step()
    gradients, optimiser = [], []
    for _ in range(count):
        step.optimizer.zero_grad(set_to_none=True)
        start = time.process_time()
        step.gradients()
        middle = time.process_time()
        step.optimizer.step()
        gradients.append(1e3 * (middle - start))
        optimiser.append(1e3 * (time.process_time() - middle))
    return {"gradient_forces": gradient, "ms": statistics.median(gradients), "best_ms": min(gradients),
            "optimiser_ms": statistics.median(optimiser), "operators": steps.operators(step),
            "parameters": sum(p.numel() for p in step.model.parameters())}  # fmt: skip
