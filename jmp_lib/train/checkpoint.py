"""Saving and resuming a run.

A checkpoint holds everything that decides the following updates.  It is written to a temporary file, forced to disk
and moved into place, and the one before is kept as ``<name>.previous``: a kill at any moment leaves a whole one, and
a damaged one is replaced by the one before.  It is read with ``torch.load(weights_only=True)``: nothing in it is
executed.
"""

from __future__ import annotations

import os
import warnings
import zipfile
from pathlib import Path

import torch

from jmp_lib.files import write_atomically

LAYOUT = 3  # raised whenever the content of a checkpoint changes


def previous(path: Path) -> Path:
    """Where the checkpoint before the one at ``path`` is kept."""
    return path.with_name(f"{path.name}.previous")


def save_checkpoint(path: Path, fingerprint: str, **parts) -> None:
    """Atomically write ``parts`` (nested dicts and lists of tensors, numbers and texts)."""
    path = Path(path)
    state = {"layout": LAYOUT, "fingerprint": fingerprint, "torch_rng": torch.get_rng_state(), **parts}
    if torch.cuda.is_available():
        state["cuda_rng"] = torch.cuda.get_rng_state()
    with write_atomically(path, "wb") as stream:
        torch.save(state, stream)
        if path.exists():
            os.replace(path, previous(path))


def load_checkpoint(path: Path, fingerprint: str) -> dict | None:
    """The checkpoint at ``path``, or None when there is none for this run.

    When it is damaged or missing, the one before it is read, with a warning.  A checkpoint of other settings (another
    fingerprint) or of an older layout is not used.  Restores the state of torch's random numbers.  Raises
    ``ValueError`` when no readable one is left.
    """
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
        if state.get("layout") != LAYOUT or state.get("fingerprint") != fingerprint:
            return None
        torch.set_rng_state(state["torch_rng"])
        if "cuda_rng" in state and torch.cuda.is_available():
            torch.cuda.set_rng_state(state["cuda_rng"])
        return state
    if damaged:
        raise ValueError(f"{' and '.join(damaged)}; delete it to start this run from the beginning")
    return None


def remove_checkpoints(path: Path) -> None:
    """Delete the checkpoints of a finished run."""
    for file in (path, previous(path)):
        file.unlink(missing_ok=True)


def remove_unfinished(folder: Path) -> None:
    """Delete the temporary files that a killed run left in ``folder``.  Call it while holding the run's lock."""
    for file in Path(folder).glob("*.tmp"):
        file.unlink(missing_ok=True)


def _read(file: Path) -> dict:
    """Content of a checkpoint; raises for a file whose bytes are not those that were written."""
    with zipfile.ZipFile(file) as archive:
        if archive.testzip() is not None:
            raise ValueError("check sum")
    state = torch.load(file, map_location="cpu", weights_only=True)
    if not isinstance(state, dict):
        raise ValueError("not a checkpoint")
    return state
