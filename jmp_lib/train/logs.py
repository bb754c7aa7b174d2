"""Logs of a training: one row per update, appended without doubled rows after a resume.

``log.csv`` always; event files for TensorBoard under ``tensorboard/`` and a run at Weights & Biases when asked for.
Only the first process of a training writes.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Sequence

import torch

from jmp_lib.files import write_atomically
from jmp_lib.records import peak_memory_mb

COLUMNS = ("update", "epoch", "lr", "loss")  # then the parts of the loss
LAST_COLUMNS = ("grad_norm", "seconds", "waiting", "memory_mb")


def memory_mb(device: torch.device) -> float:
    """Largest memory used so far, in MB (10^6 bytes): of the GPU, or of this process on a CPU."""
    return torch.cuda.max_memory_allocated(device) / 1e6 if device.type == "cuda" else peak_memory_mb()


class Logs:
    """The logs of one run.  Rows: update, epoch, lr, loss and its parts, grad_norm (before clipping), seconds and of
    it waiting for data, memory_mb."""

    def __init__(self, folder: Path, wanted: Sequence[str], parts: Sequence[str], done: int, name: str, identity: str):
        """``done``: updates done so far; later rows of an earlier start are removed.

        Raises ``RuntimeError`` when a package for a log is missing.
        """
        self.names = [*COLUMNS, *(part for part in parts if part != "total"), *LAST_COLUMNS]
        self.board = self.wandb = None
        if "tensorboard" in wanted:
            self.board = _tensorboard(folder / "tensorboard", done)
        if "wandb" in wanted:
            self.wandb = _wandb(folder, name, identity)
        self.path = Path(folder) / "log.csv"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        keep_rows(self.path, self.names, done)
        self.stream = open(self.path, "a", newline="", buffering=1)  # a row is with the system as soon as written
        self.writer = csv.DictWriter(self.stream, self.names, lineterminator="\n")

    def update(self, row: dict[str, float]) -> None:
        """Write the row of an update."""
        self.writer.writerow({name: f"{row[name]:.9g}" for name in self.names})
        self._elsewhere("train", row, row["update"])

    def validation(self, row: dict[str, float]) -> None:
        """Pass the row of a validation on to TensorBoard and Weights & Biases; the record keeps them as ``history``."""
        self._elsewhere("validation", {k: v for k, v in row.items() if k != "step"}, row["step"])

    def _elsewhere(self, group: str, row: dict[str, float], step: int) -> None:
        numbers = {f"{group}/{name}": value for name, value in row.items() if name != "update"}
        if self.board is not None:
            for name, value in numbers.items():
                self.board.add_scalar(name, value, step)
        if self.wandb is not None:
            self.wandb.log(numbers, step=step)

    def close(self) -> None:
        """Write what is still held back."""
        self.stream.close()
        if self.board is not None:
            self.board.close()
        if self.wandb is not None:
            self.wandb.finish()


def keep_rows(path: Path, names: Sequence[str], done: int) -> None:
    """Leave in the CSV at ``path`` the whole rows of updates 1 to ``done``; other columns: start anew."""
    rows: list[list[str]] = []
    if path.exists():
        with open(path, newline="") as stream:
            found = list(csv.reader(stream))
        if found and found[0] == list(names):
            rows = [row for row in found[1:] if len(row) == len(names) and row[0].isdigit() and int(row[0]) <= done]
    with write_atomically(path) as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(names)
        writer.writerows(rows)


def _tensorboard(folder: Path, done: int):
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise RuntimeError("logs: tensorboard needs the package tensorboard: pip install tensorboard, or leave "
                           "tensorboard out of engine.logs") from None
    return SummaryWriter(str(folder), purge_step=done + 1)


def _wandb(folder: Path, name: str, identity: str):
    try:
        import wandb
    except ImportError:
        raise RuntimeError("logs: wandb needs the package wandb: pip install 'jmp-workbook[wandb]', or leave wandb "
                           "out of engine.logs") from None
    return wandb.init(project="jmp-workbook", name=name, id=identity[:32], resume="allow", dir=str(folder))
