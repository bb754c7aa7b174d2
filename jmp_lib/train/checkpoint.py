"""Saving and resuming a run.

A checkpoint holds everything that decides the following updates. Its name has the run's fingerprint in it, so a run
with other settings or data leaves it alone. It is written whole or not at all (``files.replacing``), and the one before
is kept as ``<name>.previous``. It is read with ``torch.load(weights_only=True)``: nothing in it is executed.
"""

from __future__ import annotations

import os
import sys
import warnings
import zipfile
from pathlib import Path

import torch

from jmp_lib.files import replacing
from jmp_lib.records import device_name

LAYOUT = 3  # raised whenever the content of a checkpoint changes


def checkpoint_path(folder: Path, fingerprint: str) -> Path:
    """Where the run of this fingerprint keeps its checkpoint; ``folder`` may hold those of other settings or data."""
    return Path(folder) / f"checkpoint-{fingerprint[:12]}.pt"


def previous(path: Path) -> Path:
    """Where the checkpoint before the one at ``path`` is kept."""
    return path.with_name(f"{path.name}.previous")


def save_checkpoint(path: Path, fingerprint: str, **parts) -> None:
    """Atomically write ``parts`` (nested dicts and lists of tensors, numbers and texts)."""
    path = Path(path)
    state = {"layout": LAYOUT, "fingerprint": fingerprint, "torch_rng": torch.get_rng_state(), **parts}
    if torch.cuda.is_available():
        state["cuda_rng"] = torch.cuda.get_rng_state()
    with replacing(path) as temporary:
        with open(temporary, "wb") as stream:  # of Python: torch's own hides what the disk has against it
            torch.save(state, stream)
        if path.exists():
            os.replace(path, previous(path))


def load_checkpoint(path: Path, fingerprint: str) -> dict | None:
    """The checkpoint at ``path`` (where damaged or missing, with a warning, the one before it), or None when there is
    none for this run; restores the state of torch's random numbers. ``ValueError``: no readable one is left, or of
    another layout."""
    path = Path(path)
    damaged = []
    for file in (path, previous(path)):
        if not file.exists():
            continue
        try:
            state = _read(file)
        except Exception as error:
            damaged.append(f"{file} cannot be read ({type(error).__name__})")
            continue
        if damaged:
            warnings.warn(f"{damaged[0]}; the run goes on from the checkpoint before it", stacklevel=2)
        if state.get("fingerprint") != fingerprint:
            return None
        if state.get("layout") != LAYOUT:
            raise ValueError(f"{file} is of another version of this code: end the run with that one, or delete it to start anew")
        torch.set_rng_state(state["torch_rng"])
        if "cuda_rng" in state and torch.cuda.is_available():
            torch.cuda.set_rng_state(state["cuda_rng"])
        return state
    if damaged:
        raise ValueError(f"{' and '.join(damaged)}; delete it to start this run from the beginning")
    return None


def remove_checkpoints(path: Path) -> None:
    """Delete the checkpoints of a finished run, and what a kill left of them.  Call it while holding the run's lock."""
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()


def say_others(path: Path, name: str) -> None:
    """Says in a line that the run ``name`` begins anew beside unfinished ones of other settings or data."""
    others = [file.name for file in path.parent.glob("checkpoint*.pt") if file != path]
    if others and not path.exists():
        print(f"{name}: {path.parent} holds unfinished training of other settings, data or versions ({', '.join(others)}): this "
              "run begins anew beside it; give the settings of then to go on there, or remove it", file=sys.stderr)


def gone_on(machines: list[dict], processes, update: int, name: str) -> list[dict]:
    """``machines``, on which a run was computed so far, and the one that it goes on with after ``update`` updates.

    One that differs is said in a line: sums are then rounded in another order, or in another precision.
    """
    now = {"device": device_name(processes.device), "precision": processes.precision, "processes": processes.size,
           "threads": torch.get_num_threads(), "torch": str(torch.__version__)}
    changed = [f"{key} {machines[-1][key]} -> {value}" for key, value in now.items() if machines and machines[-1][key] != value]
    if changed and processes.first:
        print(f"{name}: goes on after update {update} with {', '.join(changed)}: its last digits may differ from those of an "
              "undisturbed run, and its record says so", file=sys.stderr)
    return [*machines, {"from_update": update, **now}] if changed or not machines else machines


def _read(file: Path) -> dict:
    """Content of a checkpoint; raises for a file whose bytes are not those that were written."""
    with zipfile.ZipFile(file) as archive:
        if archive.testzip() is not None:
            raise ValueError("check sum")
    state = torch.load(file, map_location="cpu", weights_only=True)
    if not isinstance(state, dict):
        raise ValueError("not a checkpoint")
    return state
