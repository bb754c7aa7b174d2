"""The log of a training: one row per update in ``log.csv``, which pandas reads while the run goes on.

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


class Log:
    """The log of one run.  Rows: update, epoch, lr, loss and its parts, grad_norm (before clipping), seconds and of
    it waiting for data, memory_mb."""

    def __init__(self, folder: Path, parts: Sequence[str], done: int):
        """``done``: updates done so far; later rows of an earlier start are removed."""
        self.names = [*COLUMNS, *(part for part in parts if part != "total"), *LAST_COLUMNS]
        self.path = Path(folder) / "log.csv"
        keep_rows(self.path, self.names, done)
        self.stream = open(self.path, "a", newline="", buffering=1)  # a row is with the system as soon as written
        self.writer = csv.DictWriter(self.stream, self.names, lineterminator="\n")

    def update(self, row: dict[str, float]) -> None:
        """Write the row of an update."""
        with writing(self.path):
            self.writer.writerow({name: f"{row[name]:.9g}" for name in self.names})

    def close(self) -> None:
        """Write what is still held back."""
        with writing(self.path):
            self.stream.close()


def keep_rows(path: Path, names: Sequence[str], done: int) -> None:
    """Leave in the CSV at ``path`` the whole rows of updates 1 to ``done``; other columns: start anew."""
    found = [line.split(",") for line in path.read_text().splitlines()] if path.exists() else []
    rows = found[1:] if found and found[0] == list(names) else []
    kept = [row for row in rows if len(row) == len(names) and row[0].isdigit() and int(row[0]) <= done]
    with write_atomically(path) as stream:
        csv.writer(stream, lineterminator="\n").writerows([names, *kept])
