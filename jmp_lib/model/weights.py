"""Weights on disk: a safetensors file with the state dict, and beside it a JSON that says which network it is."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from jmp_lib.files import reading, replacing, write_json


def save_weights(stem: Path, model: torch.nn.Module, config: dict) -> None:
    """Write ``<stem>.safetensors`` (the whole state dict) and ``<stem>.json``, each atomically."""
    write_tensors(stem, {name: t.detach().cpu().clone().contiguous() for name, t in model.state_dict().items()}, config)


def write_tensors(stem: Path, tensors: dict[str, torch.Tensor], config: dict) -> None:
    """``save_weights`` of tensors by name (contiguous, no two sharing memory); a kill in between
    leaves no wrong pair."""
    with replacing(stem.with_suffix(".safetensors")) as temporary:
        save_file(tensors, temporary)
        stem.with_suffix(".json").unlink(missing_ok=True)
    write_json(stem.with_suffix(".json"), config)


def load_weights(path: Path) -> dict[str, torch.Tensor]:
    """State dict of a safetensors file; raises ``FileNotFoundError`` or ``ValueError`` with one sentence."""
    with reading(path, "delete it if it is there, and run the pre-training (notebook 03) again"):
        return load_file(path)
