"""A trained network from its folder: rebuilt from ``model.json``, filled from ``model.safetensors``;
or as the start of others.

    loaded = jmp_lib.load("mini-small")                                  # or mini-large: they come with the package
    loaded = jmp_lib.load("jmp-s")                                       # downloads the official checkpoint once
    loaded = jmp_lib.load("results/smoke/work/pretrain/small")           # of a pre-training, a fine-tuning or an import

In a profile they are the start of its fine-tunings:

    pretrained: {small: official, large: /weights/my-large}       # sizes left out, or null, are pre-trained here
    pretrained: {small: base, large: base}                        # in a variant: those of the profile that it varies

``jmp_lib/backbones/<name>`` of a network that comes with the package holds model.safetensors and model.json,
record.json (settings, seeds, hashes, held-out errors), training.csv and validation.csv (the whole curves) and
card.md; ``python -m tools.ship mini-backbone`` puts a run there.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from jmp_lib import paths
from jmp_lib.files import file_sha256, locked, reading, replacing, write_json
from jmp_lib.graphs import GraphConfig
from jmp_lib.model import BackboneConfig, FinetuneModel, HeadSpec, PretrainModel
from jmp_lib.model.scaling import scale_modules
from jmp_lib.model.weights import load_weights
from jmp_lib.official.importing import official_folder
from jmp_lib.parameters import merge, nearest
from jmp_lib.records import finished_record, pretrain_record_path, read_record
from jmp_lib.settings import Pretraining, Profile, build

OFFICIAL = ("jmp-s", "jmp-l")
# drawn by the first updates, which a notebook trains again: 90 s of a quiet core each
LIVE_STRUCTURES = {"small": 6400, "large": 3200}
LIVE_AVERAGE = 0.9  # of their weights; the long average of the recorded run would still be at the random ones


@dataclass(frozen=True)
class Loaded:
    """A network in evaluation mode, what its ``model.json`` says, and its weights file."""

    model: torch.nn.Module
    info: dict
    path: Path


def load(name: str | Path, device: str = "cpu") -> Loaded:
    """The network of a name, of a folder with model.safetensors and model.json, or of one such file.

    ``jmp-s`` and ``jmp-l`` are downloaded once to ``checkpoints`` of the data folder (JMP_DATA). ``RuntimeError``: the
    download fails; ``FileNotFoundError``: a file is missing or a name unknown; ``ValueError``: the two files do not
    belong together, or a scale factor was never fitted.
    """
    path = weights_path(name)
    info = read_info(path)
    model = empty_model(info, path)
    fill(model, load_weights(path), info, path)
    return Loaded(model.to(device).eval(), info, path)


def weights_path(name: str | Path) -> Path:
    """The .safetensors file of a name that ``load`` knows, a folder, or such a file itself."""
    if str(name) in (shipped := shipped_names()):
        return shipped_weights(str(name))
    path = official_folder(name) if name in OFFICIAL else Path(name).expanduser()
    # a profile is used from any folder
    if not path.exists() and (root := paths.checkout_dir()) and (root / path).exists():
        path = root / path
    if path.parts == (str(name),) and not path.exists():  # a word, no path
        known = [*shipped, *OFFICIAL]
        raise FileNotFoundError(f"there is no network or folder {str(name)!r} ({nearest(str(name), known)}): give "
                                f"{', '.join(known)}, or a folder with model.json and "
                                "model.safetensors".replace("key", "name"))
    return path if path.suffix == ".safetensors" else path / "model.safetensors"


def read_info(path: Path) -> dict:
    """The JSON beside a weights file, with its kind and backbone checked."""
    file = path.with_suffix(".json")
    with reading(file, "give a folder with model.json and model.safetensors, as pre-training, "
                 "fine-tuning and import write it"):
        info = json.loads(file.read_text(encoding="utf-8"))
    if (not isinstance(info, dict) or info.get("kind") not in ("pretrain", "finetune")
            or not isinstance(info.get("backbone"), dict)):
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


def fill(model: torch.nn.Module, state: dict[str, torch.Tensor], info: dict, path: Path) -> None:
    """Give an empty network the tensors of ``state``, which must fit by name, shape and dtype; every scale
    factor must be fitted and the one that ``info`` states. A factor of 0, which acts as 1, passes only where
    ``info["not_fitted"]`` names it."""
    needed, found = ({name: f"{tuple(t.shape)} {t.dtype}" for name, t in tensors.items()}
                     for tensors in (model.state_dict(), state))
    if wrong := sorted(name for name in needed | found if needed.get(name) != found.get(name)):
        raise ValueError(f"{path} does not belong to {path.with_suffix('.json').name}: {len(wrong)} tensors differ, "
                         f"{wrong[0]!r} for instance is {found.get(wrong[0], 'not there')}, the network has "
                         f"{needed.get(wrong[0], 'none of that name')}")
    # Copies: tensors inside the mapped file begin anywhere, and sums over them then differ in the last bit.
    model.load_state_dict({name: tensor.clone() for name, tensor in state.items()}, assign=True)
    stated, excused = info.get("scale_factors") or {}, info.get("not_fitted", ())
    for name, module in scale_modules(model).items():
        if name not in stated or (not module.value and name not in excused):
            raise ValueError(f"{path} has no fitted scale factor '{name}': "
                             "fit them with jmp_lib.model.fit_scale_factors(model, "
                             "batches) on 16 batches before any training, and save the weights again")
        if float(np.float32(stated[name])) != module.value:
            raise ValueError(f"{path} has scale factor {module.value} for '{name}', "
                             f"its JSON {stated[name]}: write both again")


def seen_elements(info: dict) -> list[int] | None:
    """Atomic numbers that the weights described by ``info`` (a model.json) met in training, None where it does not say.

    Pre-trained: of the training parts of all data sets; fine-tuned: of its own and, where it began from pre-trained
    weights, of theirs.
    """
    parts = [part.get("elements") for part in (info["datasets"].values() if info["kind"] == "pretrain" else [info])]
    if None in parts:
        return None
    return sorted({z for part in (*parts, info.get("pretraining_elements") or []) for z in part})


def given_start(profile: Profile, size: str, out_dir: Path) -> dict | None:
    """{scale_factors, pretrained: {file, sha256}} of the weights that the profile names for ``size``, None without.

    They are copied to ``work/given/<size>`` of the results, so that these are whole; of a network that ships, its
    record too. A declared factor of 0 (not fitted) becomes 1, which acts the same. ``ValueError``: of another network.
    """
    name = profile.pretrained.get(size)
    if name is None:
        return None
    if name == "base":  # of a variant: where its profile starts, whose results hold those of the variant
        base = Path(out_dir).parent.parent
        record = pretrain_record_path(base, size)
        source = base / (read_record(record)["files"]["weights"]["file"] if record.is_file()
                         else f"work/given/{size}/model.safetensors")
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
        raise ValueError(f"pretrained.{size}: {source} is another network than models.{size} ({', '.join(other)} "
                         f"differ); give models.{size} its settings, or pretrained.{size}: null to pre-train here")
    factors, excused = info.get("scale_factors") or {}, info.get("not_fitted", ())
    record = shipped_record(name) if name in shipped_names() else None
    return {"scale_factors": {key: value or (1.0 if key in excused else 0.0) for key, value in factors.items()},
            "pretrained": _place(source, info, record, size, Path(out_dir))}


def _place(source: Path, info: dict, record: dict | None, size: str, out_dir: Path) -> dict:
    """Copy the weights, their JSON and, where there is one, their record into the results;
    the file entry of the weights."""
    folder = out_dir / "work" / "given" / size
    target, wanted = folder / "model.safetensors", file_sha256(source)
    with locked(folder / "lock"):
        if not target.exists() or file_sha256(target) != wanted:
            with replacing(target) as temporary:
                shutil.copyfile(source, temporary)
        if not (folder / "model.json").exists() or json.loads((folder / "model.json").read_text()) != info:
            write_json(folder / "model.json", info)
        entry, path = ({"file": target.relative_to(out_dir).as_posix(), "sha256": wanted},
                       pretrain_record_path(out_dir, size))
        if record and finished_record(path, out_dir, record["fingerprint"]) != (
                own := {**record, "files": {"weights": entry}}):
            write_json(path, own)
    return entry


def shipped_names() -> list[str]:
    """Names of the networks that ship."""
    return sorted(path.name for path in paths.BACKBONES_DIR.glob("*-*") if path.is_dir())


def shipped_record(name: str) -> dict:
    """The record of the pre-training of ``name``."""
    return read_record(paths.BACKBONES_DIR / name / "record.json")


def shipped_weights(name: str) -> Path:
    """The weights of ``name``, which must be those of its record; ``FileNotFoundError`` or
    ``ValueError`` in one sentence."""
    path, wanted = paths.BACKBONES_DIR / name / "model.safetensors", shipped_record(name)["files"]["weights"]["sha256"]
    with reading(path, "install the package again"):
        found = file_sha256(path)
    if found != wanted:
        raise ValueError(f"{path} is not the file that record.json beside it describes (the sha256 differs): "
                         "install the package again, or give another folder its own name")
    return path


def training_curve(name: str) -> pd.DataFrame:
    """Losses and learning rate over the updates of the recorded run; means over blocks of updates
    after the first 1,000."""
    with reading(path := paths.BACKBONES_DIR / name / "training.csv", "install the package again"):
        return pd.read_csv(path)


def first_updates(profile: Profile, size: str) -> Profile:
    """``profile`` for a live run of the first updates of the pre-training of its shipped network of ``size``.

    Seed, graphs, sampling, batches, optimiser and schedule are those of the record; other are the data (the embedded
    sets, validated as the profile says) and the average of the weights, which acts on no update.
    """
    recorded, own = shipped_record(profile.pretrained[size])["parameters"], profile.pretraining
    updates = -(-LIVE_STRUCTURES[size] // recorded["pretraining"]["batch_size"])
    settings = merge(recorded["pretraining"], {
        "data": "mini", "ema_decay": LIVE_AVERAGE, "eval_batch_size": own.eval_batch_size, "checkpoint_every": 50,
        "schedule": {"stop_at": f"{updates} updates", "validate_every": f"{-(-updates // 5)} updates"},
        "datasets": {key: {"max_val": one.max_val, "max_train": None} for key, one in own.datasets.items()}})
    graphs = profile.graphs | {key: GraphConfig.from_dict(graph) for key, graph in recorded["graphs"].items()}
    return profile.model_copy(update={"seed": recorded["seed"], "pretrained": {}, "graphs": graphs,
                                      "pretraining": build(Pretraining, settings,
                                                           f"settings of {profile.pretrained[size]}")})
