"""Logs of a training: one row per update in ``log.csv``, and event files for TensorBoard when asked for.

A resumed run appends without doubled rows.  Only the first process of a training writes.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Sequence

import torch

from jmp_lib.files import write_atomically, writing
from jmp_lib.records import peak_memory_mb

COLUMNS = ("update", "epoch", "lr", "loss")  # then the parts of the loss
LAST_COLUMNS = ("grad_norm", "seconds", "waiting", "memory_mb")


def memory_mb(device: torch.device) -> float:
    """Largest memory used so far, in MB (10^6 bytes): of the GPU, or of this process on a CPU."""
    return torch.cuda.max_memory_allocated(device) / 1e6 if device.type == "cuda" else peak_memory_mb()


class Logs:
    """The logs of one run.  Rows: update, epoch, lr, loss and its parts, grad_norm (before clipping), seconds and of
    it waiting for data, memory_mb."""

    def __init__(self, folder: Path, wanted: Sequence[str], parts: Sequence[str], done: int):
        """``done``: updates done so far; later rows of an earlier start are removed.

        Raises ``RuntimeError`` when the package tensorboard is missing.
        """
        self.names = [*COLUMNS, *(part for part in parts if part != "total"), *LAST_COLUMNS]
        self.board = None
        if "tensorboard" in wanted:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                raise RuntimeError("logs: tensorboard needs the package tensorboard: pip install tensorboard, or leave "
                                   "tensorboard out of engine.logs") from None
            self.board = SummaryWriter(str(Path(folder) / "tensorboard"), purge_step=done + 1)
        self.path = Path(folder) / "log.csv"
        keep_rows(self.path, self.names, done)
        self.stream = open(self.path, "a", newline="", buffering=1)  # a row is with the system as soon as written
        self.writer = csv.DictWriter(self.stream, self.names, lineterminator="\n")

    def update(self, row: dict[str, float]) -> None:
        """Write the row of an update."""
        with writing(self.path):
            self.writer.writerow({name: f"{row[name]:.9g}" for name in self.names})
        self._events("train", row, row["update"])

    def validation(self, row: dict[str, float]) -> None:
        """Pass the row of a validation on to TensorBoard; the record keeps them as ``history``."""
        self._events("validation", row, row["step"])

    def _events(self, group: str, row: dict[str, float], step: int) -> None:
        for name, value in row.items() if self.board is not None else ():
            if name not in ("update", "step"):
                self.board.add_scalar(f"{group}/{name}", value, step)

    def close(self) -> None:
        """Write what is still held back."""
        with writing(self.path):
            self.stream.close()
        if self.board is not None:
            self.board.close()


def keep_rows(path: Path, names: Sequence[str], done: int) -> None:
    """Leave in the CSV at ``path`` the whole rows of updates 1 to ``done``; other columns: start anew."""
    found = [line.split(",") for line in path.read_text().splitlines()] if path.exists() else []
    rows = found[1:] if found and found[0] == list(names) else []
    kept = [row for row in rows if len(row) == len(names) and row[0].isdigit() and int(row[0]) <= done]
    with write_atomically(path) as stream:
        csv.writer(stream, lineterminator="\n").writerows([names, *kept])
