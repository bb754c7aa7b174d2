"""What a training keeps on disk while it runs: checkpoints and a log. (Its final weights: ``jmp_lib.model.weights``.)

A checkpoint holds everything that decides the following updates. Its name has the run's fingerprint in it, so a run
with other settings or data leaves it alone. It is written whole or not at all (``files.replacing``), so after a kill
or a full disk the one before is there. It is read with ``torch.load(weights_only=True)``: nothing in it is executed.
"""

from __future__ import annotations

import csv
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import torch

from jmp_lib.files import replacing, write_atomically, writing

LAYOUT = 4  # raised whenever the content of a checkpoint changes


def checkpoint_path(folder: Path, fingerprint: str) -> Path:
    """Where the run of this fingerprint keeps its checkpoint; ``folder`` may hold those of other settings or data."""
    return Path(folder) / f"checkpoint-{LAYOUT}-{fingerprint[:12]}.pt"


def save_checkpoint(path: Path, **parts) -> None:
    """Atomically write ``parts`` (nested dicts and lists of tensors, numbers and texts)."""
    state = {"torch_rng": torch.get_rng_state(), **parts}
    if torch.cuda.is_available():
        state["cuda_rng"] = torch.cuda.get_rng_state()
    # of Python: torch's own hides what the disk has against it
    with replacing(path) as temporary, open(temporary, "wb") as stream:
        torch.save(state, stream)


def load_checkpoint(path: Path) -> dict | None:
    """The checkpoint at ``path``, or None where there is none; restores the state of torch's random numbers.
    ``ValueError``: its bytes are not those that were written."""
    if not path.exists():
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                raise ValueError("check sum")
        state = torch.load(path, map_location="cpu", weights_only=True)
        torch.set_rng_state(state["torch_rng"])
    except (MemoryError, OSError):  # the file may be whole
        raise
    except Exception as error:
        raise ValueError(f"{path} cannot be read ({type(error).__name__}); "
                         "delete it to start this run from the beginning") from None
    if "cuda_rng" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda_rng"])
    return state


def say_others(path: Path, name: str) -> None:
    """Says in a line that the run ``name`` begins anew beside unfinished ones of other settings or data."""
    others = [file.name for file in path.parent.glob("checkpoint*.pt") if file != path]
    if others and not path.exists():
        print(f"{name}: {path.parent} holds unfinished training of other settings, "
              f"data or versions ({', '.join(others)}): this "
              "run begins anew beside it; give the settings of then to go on there, or remove it", file=sys.stderr)


class Log:
    """``log.csv`` of a run, which pandas reads while it goes on; a resumed run appends without doubled rows.

    A row per update: update, epoch, lr, loss and its parts, grad_norm (before clipping), seconds and of it waiting
    for data, memory_mb (the largest so far, 10^6 bytes).
    """

    def __init__(self, folder: Path, parts: Sequence[str], done: int):
        """``done``: updates so far; rows of later ones, half rows and a table of other columns are removed."""
        self.names = ["update", "epoch", "lr", "loss", *(part for part in parts if part != "total"), "grad_norm",
                      "seconds", "waiting", "memory_mb"]
        self.path = folder / "log.csv"
        found = [line.split(",") for line in self.path.read_text().splitlines()] if self.path.exists() else []
        rows = found[1:] if found and found[0] == self.names else []
        kept = [row for row in rows if len(row) == len(self.names) and row[0].isdigit() and int(row[0]) <= done]
        with write_atomically(self.path) as stream:
            csv.writer(stream, lineterminator="\n").writerows([self.names, *kept])
        self.stream = open(self.path, "a", newline="", buffering=1)  # a row is with the system as soon as written

    def update(self, row: dict[str, float]) -> None:
        """Write the row of an update."""
        with writing(self.path):
            self.stream.write(",".join(f"{row[name]:.9g}" for name in self.names) + "\n")

    def close(self) -> None:
        """Write what is still held back."""
        with writing(self.path):
            self.stream.close()
