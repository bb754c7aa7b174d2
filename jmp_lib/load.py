"""A trained network from its folder: rebuilt from ``model.json``, filled from ``model.safetensors``.

    loaded = jmp_lib.load("results/mini/work/pretrain/small")
    loaded.model, loaded.info["graphs"], loaded.path

Works for the folders of a pre-training and of a fine-tuning (``jmp_lib.train.weights.save_weights``).
"""

from __future__ import annotations

import json
import sys
import types
from dataclasses import dataclass
from pathlib import Path

import torch
from ase.data import atomic_masses

from jmp_lib.model import BackboneConfig, FinetuneModel, HeadSpec, PretrainModel
from jmp_lib.model.heads import DIRECT_FORCES, ENERGY, GRADIENT_FORCES, SpatialExtentHead
from jmp_lib.train.weights import check_factors, load_weights

KINDS = ("pretrain", "finetune")


@dataclass(frozen=True)
class Loaded:
    """A network in evaluation mode, what its ``model.json`` says, and its weights file."""

    model: torch.nn.Module
    info: dict
    path: Path


def load(name: str | Path, device: str = "cpu") -> Loaded:
    """The network of a folder (``model.safetensors`` and ``model.json``) or of a ``.safetensors`` file beside its JSON.

    Raises ``FileNotFoundError`` when a file is missing, ``ValueError`` when the two do not belong together, a tensor
    is missing or of another shape, or a scale factor was never fitted.
    """
    path = Path(name).expanduser()
    path = path if path.suffix == ".safetensors" else path / "model.safetensors"
    info = read_info(path)
    model = empty_model(info, path)
    fill(model, load_weights(path), path)
    check_factors(model, info, path)
    return Loaded(model.to(device).eval(), info, path)


def read_info(path: Path) -> dict:
    """The JSON beside a weights file, with its kind and backbone checked."""
    file = path.with_suffix(".json")
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing; it says which network {path.name} belongs to: give a folder with "
                                "model.json and model.safetensors, as pre-training, fine-tuning and import write them")
    try:
        info = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        raise ValueError(f"{file} is not JSON; write the folder again with the command that made it") from None
    if not isinstance(info, dict) or info.get("kind") not in KINDS or not isinstance(info.get("backbone"), dict):
        raise ValueError(f"{file} does not describe a network (kind pretrain or finetune, and backbone); write the "
                         "folder again with the command that made it")
    return info


def heads_of(info: dict) -> list[HeadSpec]:
    """Heads of a fine-tuned network: the list ``heads`` when it is there, else those of the task."""
    if "heads" in info:
        return [HeadSpec(**head) for head in info["heads"]]
    if info["head"] in (GRADIENT_FORCES, DIRECT_FORCES):
        return [HeadSpec("energy", ENERGY, "sum"), HeadSpec("forces", info["head"], "sum")]
    return [HeadSpec(info["label"], info["head"], info["reduction"])]


def empty_model(info: dict, path: Path) -> torch.nn.Module:
    """The network that ``info`` describes, without memory for its weights (they are on the meta device)."""
    try:
        config = BackboneConfig.from_dict(info["backbone"])
        with torch.device("meta"):
            if info["kind"] == "pretrain":
                return PretrainModel(config, num_tasks=len(info["datasets"]))
            return FinetuneModel(config, heads_of(info))
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path.with_suffix('.json')} does not say all that the network needs ({error}); write the "
                         "folder again with the command that made it") from None


def fill(model: torch.nn.Module, state: dict[str, torch.Tensor], path: Path) -> None:
    """Give an empty network the tensors of ``state``, which must fit by name, shape and dtype."""
    own = model.state_dict()
    for kind, names in (("lacks", own.keys() - state.keys()), ("has an unknown", state.keys() - own.keys())):
        if names:
            raise ValueError(f"{path} {kind} tensor {min(names)!r} (and {len(names) - 1} more): it does not belong to "
                             f"{path.with_suffix('.json').name}")
    for name, tensor in own.items():
        if state[name].shape != tensor.shape or state[name].dtype != tensor.dtype:
            raise ValueError(f"{path}: {name!r} is {tuple(state[name].shape)} {state[name].dtype}, the network of "
                             f"{path.with_suffix('.json').name} needs {tuple(tensor.shape)} {tensor.dtype}")
    # Copies: tensors inside the mapped file begin anywhere, and sums over them then differ in the last bit.
    model.load_state_dict({name: tensor.clone() for name, tensor in state.items()}, assign=True)
    for module in model.modules():
        if isinstance(module, SpatialExtentHead):  # the one buffer that is not stored
            module.masses = torch.tensor(atomic_masses, dtype=torch.float32)


class _Callable(types.ModuleType):
    """Python binds ``jmp_lib.load`` to this module once it is imported; calling it is calling ``load``."""

    def __call__(self, name: str | Path, device: str = "cpu") -> Loaded:
        return load(name, device)


sys.modules[__name__].__class__ = _Callable
