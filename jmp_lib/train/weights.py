"""Final weights (safetensors with a readable JSON beside it), the elements that they met, and scale factors put in and
checked."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from jmp_lib.files import replacing, write_json
from jmp_lib.model.scaling import scale_modules


def save_weights(stem: Path, model: torch.nn.Module, config: dict) -> None:
    """Write ``<stem>.safetensors`` (the whole state dict) and ``<stem>.json``, each atomically."""
    write_tensors(stem, {name: t.detach().cpu().clone().contiguous() for name, t in model.state_dict().items()}, config)


def write_tensors(stem: Path, tensors: dict[str, torch.Tensor], config: dict) -> None:
    """``save_weights`` of tensors by name (contiguous, no two sharing memory); a kill in between leaves no wrong pair."""
    stem = Path(stem)
    with replacing(stem.with_suffix(".safetensors")) as temporary:
        save_file(tensors, temporary)
        stem.with_suffix(".json").unlink(missing_ok=True)
    write_json(stem.with_suffix(".json"), config)


def load_weights(path: Path) -> dict[str, torch.Tensor]:
    """State dict of a safetensors file; raises ``FileNotFoundError`` or ``ValueError`` with one sentence."""
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"the weights {path} are missing: run the pre-training (notebook 03) first")
    try:
        return load_file(path)
    except Exception as error:
        raise ValueError(f"{path} is damaged ({type(error).__name__}): delete it and run the pre-training again") from None


def seen_elements(info: dict) -> list[int] | None:
    """Atomic numbers that the weights described by ``info`` (a model.json) met in training, None where it does not say.

    Pre-trained: of the training parts of all data sets; fine-tuned: of its own and, where it began from pre-trained weights,
    of theirs.
    """
    parts = [part.get("elements") for part in (info["datasets"].values() if info["kind"] == "pretrain" else [info])]
    if None in parts:
        return None
    return sorted({z for part in (*parts, info.get("pretraining_elements") or []) for z in part})


def elements_of_weights(path: Path) -> list[int] | None:
    """``seen_elements`` of the weights file at ``path``, from the JSON beside it."""
    return seen_elements(json.loads(Path(path).with_suffix(".json").read_text(encoding="utf-8")))


def set_factors(model: torch.nn.Module, factors: dict[str, float]) -> None:
    """Put fitted factors into ``model``: name of the scale module -> value.

    A model without a direct-force branch takes the ones it has.  Raises ``ValueError`` when a factor of the
    model is not among them.
    """
    for name, module in scale_modules(model).items():
        if not factors.get(name):
            raise ValueError(f"no fitted scale factor for '{name}': the factors belong to another network; fit them "
                             "for this one (delete work/scale_factors and run again)")
        module.set(factors[name])


def check_factors(model: torch.nn.Module, info: dict, path: Path) -> None:
    """Check that every scale factor of ``model`` is fitted and is the one that ``info`` (model.json) states.

    A factor of 0, which acts as 1, passes only where ``info["not_fitted"]`` names it.  Raises ``ValueError``.
    """
    stated, excused = info.get("scale_factors") or {}, info.get("not_fitted", ())
    for name, module in scale_modules(model).items():
        if name not in stated or (not module.value and name not in excused):
            raise ValueError(f"{path} has no fitted scale factor '{name}': fit them with "
                             "jmp_lib.model.fit_scale_factors(model, batches) on 16 batches before any training (a "
                             "pre-training of jmp_lib does), and save the weights again")
        if float(np.float32(stated[name])) != module.value:
            raise ValueError(f"{path} has scale factor {module.value} for '{name}', its JSON {stated[name]}: they are "
                             "not of the same network")
