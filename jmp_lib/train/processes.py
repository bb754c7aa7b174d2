"""Training by one or several processes, through Lightning Fabric: who takes part, and sums over all of them.

Every process computes its share of every batch.  Losses are sums divided by the counts of the whole batch
(``losses.Counts``), so the gradient of the whole batch is the plain sum over processes; ``sum_gradients`` forms it once
per update, after all parts of the share.  (The DistributedDataParallel wrapper is not used: its sums happen inside the
backward pass, where a part that runs out of memory could not be repeated.)  Clipping, optimiser and averages then do
the same on every process.  The processes need one file system: the first writes, all read.

    python -m jmp_lib pretrain --devices 2              (two processes are started here)
    torchrun --nproc-per-node 8 -m jmp_lib pretrain     (torchrun or srun has started them: nothing is started here)
"""

from __future__ import annotations

import ctypes
import os
import socket
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Callable, Iterable

import torch
import torch.distributed as distributed
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from lightning_fabric.plugins.environments import LightningEnvironment
from lightning_fabric.strategies import DDPStrategy

from jmp_lib.files import locked
from jmp_lib.pool import run_jobs
from jmp_lib.settings import Engine

PATIENCE = timedelta(hours=6)  # how long one process waits for another before it gives up
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h (glibc)
MIXED = {"bfloat16-mixed": "bf16-mixed", "float16-mixed": "16-mixed"}


def choose_device(name: str) -> torch.device:
    """auto: the GPU when there is one.  Raises ``ValueError`` for cuda without a GPU."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is cuda but torch sees no GPU: write device: auto or cpu in the profile")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def keep_freed_memory() -> bool:
    """Large arrays come from the heap, and the heap is not given back before the end; False where that
    cannot be set (no glibc).

    A training step on a CPU allocates and frees thousands of arrays of many megabytes.  By default large ones go back
    to the system at once, and every page that is asked for again is cleared again.  ``docs/compute.md`` names another
    allocator that takes less memory besides.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # macOS, Windows, musl
        return False
    return mallopt(M_MMAP_MAX, 0) == 1 and mallopt(M_TRIM_THRESHOLD, -1) == 1


def launched() -> tuple[int, int] | None:
    """(processes per node, nodes) where torchrun or srun started this process among others, else None."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        local = int(os.environ["LOCAL_WORLD_SIZE"])
        return local, int(os.environ["WORLD_SIZE"]) // local
    tasks, nodes = (int(os.environ.get(f"SLURM_STEP_NUM_{name}", 1)) for name in ("TASKS", "NODES"))
    return (tasks // nodes, nodes) if tasks > 1 and "SLURM_PROCID" in os.environ else None


def is_first() -> bool:
    """Whether this process is the one that writes, before any training has started."""
    return launched() is None or int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", 0))) == 0


class Processes:
    """The processes of one training: ``rank`` of this one from 0, ``size`` how many, ``first`` whether this is rank 0,
    ``device`` of this one, ``scaler`` of the loss (float16 only), ``fabric``: autocast, sums, broadcasts, barriers."""

    def __init__(self, device: torch.device | str = "cpu", precision: str = "float32", cpu_autocast: bool = False):
        """Joins the processes that torchrun or srun started; without them, this process is the only one.

        On a CPU a run is float32 whatever ``precision`` says, unless ``cpu_autocast`` and it is mixed.
        """
        device = torch.device(device)
        self.precision = precision if device.type == "cuda" or cpu_autocast and precision in MIXED else "float32"
        torch.set_float32_matmul_precision("high" if self.precision == "tf32" else "highest")
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision == "float16-mixed")
        found = launched()
        plugins = [] if found else [LightningEnvironment()]  # one process of a Slurm job must not wait for others
        if self.precision in MIXED:
            scaler = self.scaler if self.scaler.is_enabled() else None
            plugins.append(MixedPrecision(MIXED[self.precision], device.type, scaler))
        per_node, nodes = found or (1, 1)
        if device.type == "cuda" and per_node > torch.cuda.device_count():
            raise ValueError(f"{per_node} processes on this machine, but torch sees {torch.cuda.device_count()} GPUs: "
                             "start fewer (engine.devices), let every task see all of them (srun --gpus-per-node), or "
                             "set device: cpu in the profile")
        strategy = DDPStrategy(timeout=PATIENCE) if per_node * nodes > 1 else "auto"
        self.fabric = Fabric(accelerator=device.type, devices=per_node, num_nodes=nodes,
                             strategy=strategy, plugins=plugins)
        self.fabric.launch()
        self.rank, self.size, self.device = self.fabric.global_rank, self.fabric.world_size, self.fabric.device
        self.first = self.rank == 0
        self._used: list[bool] | None = None  # parameters that get a gradient

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """The gradient of every parameter summed over the processes.

        A parameter without gradient stays so only where no process has one: AdamW then leaves it alone, as it would in
        one process. Which ones do is asked once: it depends on the loss and not on the batch.
        """
        if self.size == 1:
            return
        parameters = [p for p in parameters if p.requires_grad]
        if self._used is None:
            present = torch.tensor([p.grad is not None for p in parameters], dtype=torch.int32, device=self.device)
            distributed.all_reduce(present, distributed.ReduceOp.MAX)
            self._used = [bool(any_) for any_ in present.tolist()]
        used = [p for p, any_ in zip(parameters, self._used, strict=True) if any_]
        for p in used:
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad.contiguous()
        for message in [distributed.all_reduce(p.grad, async_op=True) for p in used]:
            message.wait()

    def gather(self, value) -> list:
        """``value`` (plain numbers, texts, arrays) of every process, in the order of ranks, on every process."""
        if self.size == 1:
            return [value]
        found = [None] * self.size
        distributed.all_gather_object(found, value)
        return found

    @contextmanager
    def alone(self, lock: Path):
        """No other training holds ``lock`` meanwhile; a second one says so, waits and then finds the
        first one's results."""
        busy = f"{lock.parent}: another process trains this run; waiting for it"
        with locked(lock, busy, wait=True) if self.first else nullcontext():
            self.fabric.barrier()
            yield
            self.fabric.barrier()


def needed(engine: Engine) -> bool:
    """Whether a training with ``engine`` has its processes still to be started."""
    return launched() is None and engine.devices > 1


def in_processes(count: int, function: Callable, *arguments) -> None:
    """``function(*arguments)`` in ``count`` new processes that train together; importable, with picklable arguments.

    ``RuntimeError`` with the sentence of the process that failed first; ``Terminated``: the run was ended from outside.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    jobs = [(f"process {rank}", _member, (rank, count, port, function, arguments)) for rank in range(count)]
    for outcome in run_jobs(jobs, count, "the training", together=True):
        if outcome.error:
            raise RuntimeError(outcome.error)


def _member(rank: int, count: int, port: int, function: Callable, arguments: tuple) -> None:
    """One of the started processes; its environment is that of torchrun."""
    os.environ.update({"TORCHELASTIC_RUN_ID": "jmp_lib", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
                       "RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0", "WORLD_SIZE": str(count),
                       "LOCAL_WORLD_SIZE": str(count)})
    try:
        function(*arguments)
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()
