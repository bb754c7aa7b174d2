"""Saving and resuming a run, and the final weights.

A checkpoint holds everything that decides the following updates; it is written to a temporary file and
moved into place, so a kill at any moment leaves the previous one whole.  It is read with
``torch.load(weights_only=True)``: nothing in it is executed.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch

LAYOUT = 1  # raised whenever the content of a checkpoint changes


def save_checkpoint(path: Path, fingerprint: str, **parts) -> None:
    """Atomically write ``parts`` (nested dicts and lists of tensors, numbers and texts)."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    state = {"layout": LAYOUT, "fingerprint": fingerprint, "torch_rng": torch.get_rng_state(), **parts}
    if torch.cuda.is_available():
        state["cuda_rng"] = torch.cuda.get_rng_state()
    torch.save(state, temporary)
    os.replace(temporary, path)


def load_checkpoint(path: Path, fingerprint: str) -> dict | None:
    """The checkpoint at ``path``, or None when there is none for this run.

    A checkpoint of other settings (another fingerprint) or of an older layout is not used.  Restores the
    state of torch's random numbers.  Raises ``ValueError`` for a damaged file.
    """
    path = Path(path)
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"{path} cannot be read ({type(error).__name__}); delete it to start this run "
                         "from the beginning") from None
    if state.get("layout") != LAYOUT or state.get("fingerprint") != fingerprint:
        return None
    torch.set_rng_state(state["torch_rng"])
    if "cuda_rng" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda_rng"])
    return state
