"""Training by one or several processes, through Lightning Fabric: who takes part, and sums over all of them.

Every process computes its share of every batch.  Losses are sums divided by the counts of the whole batch
(``losses.Counts``), so the gradient of the whole batch is the plain sum over processes; ``sum_gradients`` forms it once
per update, after all parts of the share.  (The DistributedDataParallel wrapper is not used: its sums happen inside the
backward pass, where a part that runs out of memory could not be repeated.)  Clipping, optimiser and averages then do
the same on every process.  The processes need one file system: the first writes, all read.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Iterable

import torch
import torch.distributed as distributed
from filelock import FileLock
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from lightning_fabric.plugins.environments import LightningEnvironment
from lightning_fabric.strategies import DDPStrategy

PATIENCE = timedelta(hours=6)  # how long one process waits for another before it gives up
BUCKET = 32 * 2**20  # gradient values that are summed in one message
MIXED = {"bfloat16-mixed": "bf16-mixed", "float16-mixed": "16-mixed"}


def launched() -> tuple[int, int] | None:
    """(processes per node, nodes) where torchrun or srun started this process among others, else None."""
    environment = os.environ
    if "TORCHELASTIC_RUN_ID" in environment:
        local = int(environment["LOCAL_WORLD_SIZE"])
        return local, int(environment["WORLD_SIZE"]) // local
    tasks, nodes = (int(environment.get(f"SLURM_STEP_NUM_{name}", 1)) for name in ("TASKS", "NODES"))
    return (tasks // nodes, nodes) if tasks > 1 and "SLURM_PROCID" in environment else None


def is_first() -> bool:
    """Whether this process is the one that writes, before any training has started."""
    return launched() is None or int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", 0))) == 0


class Processes:
    """The processes of one training.

    ``rank`` of this one from 0, ``size`` how many, ``first`` whether this is rank 0, ``device`` of this one, ``scaler``
    of the loss (float16 only).
    """

    def __init__(self, device: torch.device | str = "cpu", precision: str = "float32"):
        """Joins the processes that torchrun or srun started; without them, this process is the only one."""
        device = torch.device(device)
        self.precision = used_precision(precision, device)
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
        self.fabric = Fabric(accelerator=device.type, devices=per_node, num_nodes=nodes, strategy=strategy,
                             plugins=plugins)
        self.fabric.launch()
        self.rank, self.size, self.device = self.fabric.global_rank, self.fabric.world_size, self.fabric.device
        self.first = self.rank == 0

    def autocast(self):
        """Context of the forward pass in the run's precision."""
        return self.fabric.autocast() if self.precision in MIXED else nullcontext()

    def sum_numbers(self, values: list[float]) -> list[float]:
        """Every number summed over the processes."""
        if self.size == 1:
            return values
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.all_reduce(total)
        return total.tolist()

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """The gradient of every parameter summed over the processes.

        A parameter without gradient stays so only where no process has one (a head whose data set is not in the
        batch): AdamW then leaves it alone, as it would in one process.
        """
        if self.size == 1:
            return
        parameters = [p for p in parameters if p.requires_grad]
        present = torch.tensor([p.grad is not None for p in parameters], dtype=torch.int32, device=self.device)
        distributed.all_reduce(present, distributed.ReduceOp.MAX)
        used = [p for p, any_ in zip(parameters, present.tolist()) if any_]
        for p in used:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        for bucket in _buckets([p.grad for p in used]):
            flat = torch.cat([g.reshape(-1) for g in bucket])
            distributed.all_reduce(flat)
            for g, total in zip(bucket, flat.split([g.numel() for g in bucket])):
                g.copy_(total.view_as(g))

    def gather(self, value) -> list:
        """``value`` (plain numbers, texts, arrays) of every process, in the order of ranks, on every process."""
        if self.size == 1:
            return [value]
        found = [None] * self.size
        distributed.all_gather_object(found, value)
        return found

    def broadcast(self, value):
        """The first process's ``value``, on every process."""
        return self.fabric.broadcast(value)

    def wait(self) -> None:
        """Until all processes are here."""
        self.fabric.barrier()

    @contextmanager
    def alone(self, lock: Path):
        """No other training holds ``lock`` meanwhile; a second one waits and then finds the first one's results."""
        lock.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock) if self.first else nullcontext():
            self.wait()
            yield
            self.wait()


def _buckets(tensors: list[torch.Tensor]) -> Iterable[list[torch.Tensor]]:
    """``tensors`` in groups of one number type and at most BUCKET values (or one tensor)."""
    bucket: list[torch.Tensor] = []
    for tensor in tensors:
        if bucket and (sum(t.numel() for t in bucket) + tensor.numel() > BUCKET or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


def used_precision(precision: str, device: torch.device) -> str:
    """The precision that a run really uses on ``device``, for its record: on a CPU every run is float32."""
    return precision if device.type == "cuda" else "float32"
