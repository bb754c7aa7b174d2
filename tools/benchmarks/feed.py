"""Preparing batches of the joint pre-training, and how long a training waits for them.

The real path: temperature sampling over the four embedded sets, edge dropout, graphs, collation. Batches are first
prepared alone in one process; then a network is trained on them, with batches prepared in the training process and by
one other. Last, batches are only fetched, as fast as 0, 1, 2, 4, ... worker processes up to the cores of this machine
prepare them.
"""

from __future__ import annotations

import math
import time
from contextlib import closing
from functools import cache

import torch

from jmp_lib.model.scaling import scale_modules
from jmp_lib.settings import load_profile
from jmp_lib.train.batches import AHEAD, UpdateBatches, prepared
from jmp_lib.train.joint_sets import joint_sets
from jmp_lib.train.pretraining import new_model, parts_of_run
from jmp_lib.train.processes import Processes, keep_freed_memory
from tools.benchmarks.machine import cores

HELP = "preparing batches: structures per second, and the share of a training that waits for them"
WANTED = 2000.0  # structures per second and GPU that the data path should keep up with
SECONDS = 3.0  # for which batches are fetched from so many workers

# name -> profile whose network and graphs, timed updates
CASES = {"JMP-S, published graphs": ("paper", 4), "small network of mini": ("mini", 60)}


def add_options(parser) -> None:
    """Options of this measurement."""
    parser.add_argument("--threads", type=int, default=2, help="threads of the training (default 2)")


def run(args) -> dict:
    """Every case; prints and returns the numbers."""
    keep_freed_memory()
    print(f"{'':26s} {'ms/batch':>9s} {'structures/s':>13s} {'cores':>6s} {'ms/update':>10s} "
          f"{'waiting':>8s} {'ahead':>7s}")
    rows = {}
    for name, (profile, updates) in CASES.items():
        rows[name] = r = one_case(profile, updates, args.threads)
        print(f"{name:26s} {r['ms_per_batch']:9.2f} {r['structures_per_second']:13.0f} {r['cores_for_2000']:6d} "
              f"{r['ms_per_update']:10.1f} {100 * r['waiting_share']:7.2f}% "
              f"{100 * r['waiting_share_ahead']:6.2f}%", flush=True)
    print(f"structures/s: by one core; cores: for {WANTED:.0f} structures/s; waiting: share of the training's time, "
          "with batches prepared in between, and ahead by one process")
    print_scaling()
    return {"threads": args.threads, "cases": rows}


def one_case(name: str, updates: int, threads: int) -> dict:
    """Cost of a batch of eight, of an update, and shares of waiting."""
    profile, model, data, loss, optimizer = _run_of(name)
    count = max(updates, 60)
    torch.set_num_threads(1)  # as in a process that prepares
    time.sleep(1.0)  # idle threads of what came before spin for a while, which counts as processor time
    began = time.process_time()
    for k in range(count):  # structures are met for the first time: neighbours are searched
        data[k]
    per_batch = (time.process_time() - began) / count
    torch.set_num_threads(threads)

    def update(share) -> None:
        optimizer.zero_grad(set_to_none=True)
        for part in share.parts:
            loss(part, share.counts)["total"].backward()
        optimizer.step()

    times = {workers: _train(data, count, updates, workers, update) for workers in (0, 1)}
    rate = profile.pretraining.batch_size / per_batch
    return {"batch_size": profile.pretraining.batch_size, "updates": updates, "ms_per_batch": 1e3 * per_batch,
            "structures_per_second": rate, "cores_for_2000": math.ceil(WANTED / rate),
            "ms_per_update": 1e3 * times[0]["busy"] / updates, "waiting_share": _share(times[0]),
            "waiting_share_ahead": _share(times[1])}  # fmt: skip


def print_scaling() -> None:
    """Structures per second by 0, 1, 2, 4, ... worker processes (0: this one prepares), each batch from positions;
    one line each."""
    name, (profile, _) = next(iter(CASES.items()))
    data, count = _run_of(profile)[2], cores()
    for kept in data.caches:
        kept.kept, kept.max_bytes = {}, 0.0  # no graph is met twice
    print(f"worker processes ({name}, {count} cores): structures/s, and in multiples of one worker's")
    one = None
    for workers in (0, *(2**k for k in range(count.bit_length()))):
        rate = fetched_per_second(data, workers)
        one = rate if workers == 1 else one
        print(f"{workers:4d} {rate:9.0f}" + (f" {rate / one:6.2f}" if one else ""), flush=True)


def fetched_per_second(data: UpdateBatches, workers: int, seconds: float = SECONDS) -> float:
    """Structures per second over ``seconds``, begun when every worker runs and what it had ready is used up."""
    with closing(prepared(data, 0, 10**9, workers, False)) as batches:
        for _ in range(1 + AHEAD * workers):
            next(batches)
        began, structures = time.perf_counter(), 0
        while (passed := time.perf_counter() - began) < seconds:
            structures += next(batches).counts.structures
    return structures / passed


@cache
def _run_of(name: str) -> tuple:
    """(profile, model, batches, loss, optimiser) of a joint pre-training on the embedded sets,
    eight structures an update."""
    profile = load_profile(name, **{"pretraining.data": "mini", "pretraining.batch_size": 8})
    factors = dict.fromkeys(scale_modules(new_model(profile, "small")), 1.0)
    return profile, *parts_of_run(profile, "small", joint_sets(profile), factors, Processes(torch.device("cpu")))


def _train(data, first: int, updates: int, workers: int, update) -> dict[str, float]:
    """Seconds of waiting and of computing over ``updates`` updates after one that is not counted."""
    waiting = busy = 0.0
    batches = prepared(data, first, first + updates + 1, workers, False)
    update(next(batches))
    for _ in range(updates):
        began = time.perf_counter()
        share = next(batches)
        middle = time.perf_counter()
        update(share)
        waiting, busy = waiting + middle - began, busy + time.perf_counter() - middle
    return {"waiting": waiting, "busy": busy}


def _share(times: dict[str, float]) -> float:
    return times["waiting"] / (times["waiting"] + times["busy"])
