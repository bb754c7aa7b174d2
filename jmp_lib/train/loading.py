"""A trained network from its folder: rebuilt from ``model.json``, filled from ``model.safetensors``; or as the start of others.

    loaded = jmp_lib.load("jmp-s")                                       # downloads the official checkpoint once
    loaded = jmp_lib.load("results/mini/work/pretrain/small")
    loaded.model, loaded.info["graphs"], loaded.path

Works for the folders of a pre-training, of a fine-tuning (``jmp_lib.train.weights.save_weights``) and of
``import-checkpoint``.  In a profile they are the start of its fine-tunings:

    pretrained: {small: official, large: /weights/my-large}       # sizes left out are pre-trained here
    pretrained: {small: base, large: base}                        # in a variant: those of the profile that it varies
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from ase.data import atomic_masses

from jmp_lib.files import file_sha256, locked, reading, replacing, write_json
from jmp_lib.model import BackboneConfig, FinetuneModel, HeadSpec, PretrainModel
from jmp_lib.model.heads import SpatialExtentHead
from jmp_lib.official.importing import official_folder
from jmp_lib.settings import Profile
from jmp_lib.train.weights import check_factors, load_weights

OFFICIAL = ("jmp-s", "jmp-l")
KINDS = ("pretrain", "finetune")


@dataclass(frozen=True)
class Loaded:
    """A network in evaluation mode, what its ``model.json`` says, and its weights file."""

    model: torch.nn.Module
    info: dict
    path: Path


def load(name: str | Path, device: str = "cpu") -> Loaded:
    """The network ``jmp-s`` or ``jmp-l``, of a folder with model.safetensors and model.json, or of one such file.

    The two names download the official checkpoint to ``checkpoints`` of the data folder (JMP_DATA) and import it, unless
    that was done before. Raises ``RuntimeError`` when the download fails, ``FileNotFoundError`` when a file is
    missing, ``ValueError`` when the two do not belong together, a tensor
    is missing or of another shape, or a scale factor was never fitted.
    """
    path = weights_path(name)
    info = read_info(path)
    model = empty_model(info, path)
    fill(model, load_weights(path), path)
    check_factors(model, info, path)
    return Loaded(model.to(device).eval(), info, path)


def weights_path(name: str | Path) -> Path:
    """The .safetensors file of ``jmp-s``, ``jmp-l``, a folder, or such a file itself."""
    path = official_folder(name) if name in OFFICIAL else Path(name).expanduser()
    return path if path.suffix == ".safetensors" else path / "model.safetensors"


def read_info(path: Path) -> dict:
    """The JSON beside a weights file, with its kind and backbone checked."""
    file = path.with_suffix(".json")
    with reading(file, "give a folder with model.json and model.safetensors, as pre-training, fine-tuning and import write it"):
        info = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(info, dict) or info.get("kind") not in KINDS or not isinstance(info.get("backbone"), dict):
        raise ValueError(f"{file} does not describe a network (kind pretrain or finetune, and backbone); write the "
                         "folder again with the command that made it")
    return info


def empty_model(info: dict, path: Path) -> torch.nn.Module:
    """The network that ``info`` describes, without memory for its weights (they are on the meta device)."""
    try:
        config = BackboneConfig.from_dict(info["backbone"])
        with torch.device("meta"):
            if info["kind"] == "pretrain":
                return PretrainModel(config, num_tasks=len(info["datasets"]))
            return FinetuneModel(config, [HeadSpec(**head) for head in info["heads"]])
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


def given_start(profile: Profile, size: str, out_dir: Path) -> dict | None:
    """{scale_factors, pretrained: {file, sha256}} of the weights that the profile names for ``size``, None without.

    The weights are copied to ``work/given/<size>`` of the results, so that these are whole. A declared factor of 0 (not
    fitted) becomes 1, which acts the same. Raises ``ValueError`` when they are of another network, ``FileNotFoundError``
    when they are missing.
    """
    name = profile.pretrained.get(size)
    if name is None:
        return None
    if name == "base":  # of a variant: the pre-training of its profile, whose results hold those of the variant
        source = Path(out_dir).parent.parent / "work" / "pretrain" / size / "model.safetensors"
        if not source.is_file():
            raise FileNotFoundError(f"pretrained.{size}: base: {source} is missing; run profile "
                                    f"{profile.name.removesuffix(f'-{profile.variant}')} first")
    else:
        source = weights_path({"small": "jmp-s", "large": "jmp-l"}[size] if name == "official" else name)
    info = read_info(source)
    if info["kind"] != "pretrain":
        raise ValueError(f"pretrained.{size}: {source} is a fine-tuned network; give the folder of a pre-training")
    if info["backbone"] != profile.models[size].to_dict():
        other = [key for key, value in profile.models[size].to_dict().items() if info["backbone"].get(key) != value]
        raise ValueError(f"pretrained.{size}: {source} is another network than models.{size} ({', '.join(other)} differ)")
    factors, excused = info.get("scale_factors") or {}, info.get("not_fitted", ())
    return {"scale_factors": {key: value or (1.0 if key in excused else 0.0) for key, value in factors.items()},
            "pretrained": _place(source, info, Path(out_dir) / "work" / "given" / size, out_dir)}


def _place(source: Path, info: dict, folder: Path, out_dir: Path) -> dict:
    """Copy the weights and their JSON into ``folder``; the file entry of the weights."""
    target, wanted = folder / "model.safetensors", file_sha256(source)
    with locked(folder / "lock"):
        if not target.exists() or file_sha256(target) != wanted:
            with replacing(target) as temporary:
                shutil.copyfile(source, temporary)
        if not (folder / "model.json").exists() or json.loads((folder / "model.json").read_text()) != info:
            write_json(folder / "model.json", info)
    return {"file": target.relative_to(out_dir).as_posix(), "sha256": wanted}
