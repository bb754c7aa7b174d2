"""Training steps on one GPU, and a joint pre-training with all that belongs to it: time, kernels,
share of busy time, memory.

A row is one case in one precision: median time of an eager step (forward, backward, AdamW), kernels of a step and
share of the time that the GPU computes (both from the profiler), peak memory, and the time of the same step recorded
as a CUDA graph and replayed. The last rows are a joint pre-training by the trainer (data, loader, optimiser,
averages, logs) beside its bare step. All of it takes a few minutes. ``--tiny`` runs every row with small sizes, on a
CPU too, where there is no GPU to measure: it shows that the command works and measures nothing.
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
from pathlib import Path

import torch
from torch.autograd import DeviceType

from jmp_lib.model import BackboneConfig, scaling
from jmp_lib.settings import load_profile
from jmp_lib.train.joint_sets import joint_sets
from jmp_lib.train.pretraining import new_model, parts_of_run
from jmp_lib.train.processes import Processes
from jmp_lib.train.schedule import EMA, Updates
from jmp_lib.train.trainer import READ_EVERY, Progress, Training, train
from tools.benchmarks import steps

HELP = ("training steps and a joint pre-training on a GPU (one sentence where there is none; "
        "--tiny: a trial of the command)")
NO_GPU = "torch finds no CUDA device here, so the GPU table was not measured; run this on a machine with a GPU."
# network, kind and number of structures, gradient forces, precisions; the networks: published S and L,
# "narrow" of the mini profile
CASES = [
    ("S", "aspirin", 8, False, ("bfloat16", "tf32")), ("S", "aspirin", 8, True, ("tf32",)),
    ("S", "slab", 8, False, ("bfloat16", "tf32")), ("S", "slab", 8, True, ("tf32",)),
    ("narrow", "ethanol", 64, False, ("float32",)), ("narrow", "ethanol", 64, True, ("float32",)),
    ("L", "aspirin", 8, False, ("bfloat16",)),
]  # fmt: skip
BATCH = 32  # structures of an update of the joint pre-training
UPDATES = 3 * READ_EVERY["cuda"]  # a third of which warms up


def add_options(parser) -> None:
    """Options of this measurement."""
    parser.add_argument("--steps", type=int, default=10, help="timed steps of each row, after four others (default 10)")
    parser.add_argument("--workers", type=int, default=8,
                        help="processes that prepare data for the pre-training (default 8)")
    parser.add_argument("--tiny", action="store_true", help="small sizes: a trial of the command, also without a GPU")


def run(args) -> dict:
    """Every row; prints and returns the numbers."""
    if not torch.cuda.is_available() and not args.tiny:
        print(NO_GPU)
        return {"rows": [], "why": NO_GPU}
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    card = (torch.cuda.get_device_name() if device.type == "cuda"
            else "no GPU: a trial of the command, not a measurement")
    print(f"{card}\n{'':28s} {'':9s} {'ms':>8s} {'kernels':>8s} {'busy':>6s} {'GB':>6s} {'recorded ms':>12s}")
    rows = []
    for size, kind, number, gradient, precisions in CASES:
        if args.tiny:
            size, kind, number = "narrow", "ethanol", 2
        for precision in precisions:
            found = {"network": size, "kind": kind, "structures": number,
                     "gradient_forces": gradient, "precision": precision}
            found |= attempt(lambda found=found: one_step(found, device, args.steps))
            rows.append(found)
            _print(f"{size} {number} {kind} {'gradient' if gradient else 'direct'}", found)
    joint = attempt(lambda: joint_pretraining(device, args.workers, args.tiny))
    print(f"joint pre-training, updates of {joint.get('structures')}: " + (joint.get("why") or
          f"{1e3 * joint['seconds']:.1f} ms an update, {1e3 * joint['bare_seconds']:.1f} bare "
          f"({joint['to_bare']:.2f} times), {joint['waiting_share']:.0%} of the time waiting for data; "
          f"with engine.graphs {1e3 * joint['recorded_seconds']:.1f} ms "
          f"({joint['graphs']['recorded']} shapes recorded, {joint['graphs']['share_of_updates']:.0%} of updates, "
          f"padding {joint['graphs']['mean_padding_cost']:.0%})"))  # fmt: skip
    return {"card": card, "rows": rows, "joint_pretraining": joint}


def attempt(work) -> dict:
    """What ``work`` finds, or why it could not be measured: a row that fails must not cost the others."""
    try:
        return work()
    except Exception as error:  # noqa: BLE001 (whatever a card or its driver says)
        return {"why": f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"}
    finally:
        torch.set_float32_matmul_precision("highest")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def one_step(case: dict, device: torch.device, count: int) -> dict:
    """Numbers of the row of a ``case``."""
    config = {"S": BackboneConfig, "L": BackboneConfig.large, "narrow": lambda: load_profile("mini").models["small"]}
    batch = steps.make_batch(case["kind"], case["structures"]).to(device)
    with device:  # the initialisation of JMP-L takes long on a CPU
        model = steps.make_model(config[case["network"]](), case["gradient_forces"])
    step = steps.Step(model.to(device), batch, capturable=device.type == "cuda")
    torch.set_float32_matmul_precision("high" if case["precision"] == "tf32" else "highest")
    # inside a recorded step no weight may come from a cache of before
    precise = lambda: torch.autocast(device.type, torch.bfloat16,  # noqa: E731
                                     case["precision"] == "bfloat16", cache_enabled=False)

    def work() -> None:
        step(precise)

    for _ in range(4):
        work()
    reset_peak(device)
    found = {"seconds": seconds_of(work, count, device), **kernels(work, device), "peak_gb": peak_gb(device)}
    return {**found, **recorded(work, count, device)}


def recorded(work, count: int, device: torch.device) -> dict:
    """Seconds of the step as one replayed CUDA graph, or why it could not be recorded."""
    if device.type != "cuda":
        return {"recorded_why": "no GPU"}
    graph, side = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    try:
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            work()
        torch.cuda.current_stream().wait_stream(side)
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            work()
        return {"recorded_seconds": seconds_of(graph.replay, count, device)}
    except Exception as error:  # noqa: BLE001
        torch.cuda.synchronize()
        return {"recorded_why": f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"}


def kernels(work, device: torch.device) -> dict:
    """Kernels of one step and the share of its time in which one of them runs (on a CPU: operators)."""
    if device.type != "cuda":
        with steps.CountOperators() as counter:
            work()
        return {"kernels": counter.count, "busy_share": None}
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        work()
        torch.cuda.synchronize()
    spans = sorted((e.time_range.start, e.time_range.end) for e in profiler.events()
                   if e.device_type == DeviceType.CUDA)
    busy, last = 0.0, spans[0][0]
    for start, end in spans:  # microseconds; what overlaps counts once
        busy += max(0.0, end - max(start, last))
        last = max(last, end)
    return {"kernels": len(spans), "busy_seconds": 1e-6 * busy, "busy_share": busy / (last - spans[0][0])}


def joint_pretraining(device: torch.device, workers: int, tiny: bool) -> dict:
    """Seconds of an update of the trainer with everything around it, and of its bare step on batches that lie ready."""
    changes = {"pretraining.precision": "bfloat16-mixed", "device": device.type,
               "data": "mini", "pretraining.data": "mini"}
    structures, updates = (4, 3) if tiny else (BATCH, UPDATES)
    profile = load_profile("smoke" if tiny else "one_gpu", **changes, **{"pretraining.batch_size": structures})
    profile = profile.model_copy(update={"engine": profile.engine.model_copy(
        update={"workers_data": 0 if tiny else workers})})
    processes = Processes(device, "bfloat16-mixed", cpu_autocast=True)
    sets = joint_sets(profile)
    names = scaling.scale_modules(new_model(profile, "small", len(sets)))
    model, data, loss, optimizer = parts_of_run(profile, "small", sets, dict.fromkeys(names, 1.0), processes)
    shares = [data[k] for k in range(2 if tiny else 8)]
    batches = [(share.parts[0].to(device), share.counts) for share in shares]

    def bare() -> None:
        for batch, counts in batches:
            optimizer.zero_grad(set_to_none=True)
            with processes.fabric.autocast():
                total = loss(batch, counts)["total"]
            total.backward()
            optimizer.step()

    model.train()
    bare()
    bare_seconds = seconds_of(bare, 1 if tiny else 3, device) / len(batches)

    def trained(graphs: str) -> tuple[float, Progress]:
        """Seconds of an update of the trainer, and how it went."""
        clock: list[float] = []

        def clip(norm: torch.Tensor) -> None:  # is called in every update, also where its pass is replayed
            clock.append(time.perf_counter())
            torch.nn.utils.clip_grads_with_norm_(model.parameters(), 1.0, norm)

        with tempfile.TemporaryDirectory() as folder:
            done = train(Training(
                model=model, optimizer=optimizer, schedule=Updates(0, 1.0, updates, 0.1, updates, updates),
                updates_per_epoch=updates, data=data, loss=loss, validate=dict, loss_names=("total", "energy", "force"),
                clip=clip, checkpoint=Path(folder) / "checkpoint.pt", checkpoint_every=updates + 1,
                processes=processes, engine=profile.engine.model_copy(update={"graphs": graphs}), ema=EMA(model, 0.99),
                gradient_divisors=model.gradient_divisors()))  # fmt: skip
        # the loader has started, the allocator has its blocks; whole groups of updates that are read together
        first = updates // 3
        return (clock[-1] - clock[first]) / (len(clock) - 1 - first), done

    (seconds, done), (recorded_seconds, padded) = trained("off"), trained("on")
    return {"structures": structures, "updates": updates, "workers": 0 if tiny else workers, "seconds": seconds,
            "bare_seconds": bare_seconds, "to_bare": seconds / bare_seconds, "waiting_share": done.waiting_share,
            "recorded_seconds": recorded_seconds, "graphs": padded.graphs}  # fmt: skip


def seconds_of(work, count: int, device: torch.device) -> float:
    """Median seconds of ``work``; the device has finished."""
    wait = torch.cuda.synchronize if device.type == "cuda" else contextlib.nullcontext
    found = []
    for _ in range(count):
        wait()
        start = time.perf_counter()
        work()
        wait()
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()


def peak_gb(device: torch.device) -> float:
    """Most memory of arrays on the GPU, 10⁹ bytes; on a CPU of this process."""
    return torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else steps.peak_memory_gb()


def _print(label: str, row: dict) -> None:
    if "why" in row:
        print(f"{label:28s} {row['precision']:9s} {row['why']}", flush=True)
        return
    busy = "-" if row["busy_share"] is None else f"{row['busy_share']:.0%}"
    again = f"{1e3 * row['recorded_seconds']:12.2f}" if "recorded_seconds" in row else f" {row['recorded_why']}"
    print(f"{label:28s} {row['precision']:9s} {1e3 * row['seconds']:8.1f} {row['kernels']:8d} {busy:>6s} "
          f"{row['peak_gb']:6.1f} {again}", flush=True)  # fmt: skip
