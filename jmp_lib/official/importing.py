"""``python -m jmp_lib import-checkpoint FILE``: an official checkpoint becomes a folder that ``jmp_lib.load`` reads.

Written: ``model.safetensors`` (every entry of the network's state dict), ``model.json`` (as a pre-training of jmp_lib
writes it) and ``MODEL_CARD.md``. Nothing in the checkpoint is executed (:mod:`jmp_lib.official.archive`), its numbers
are taken from the mapped file, and the optimiser's states are not read at all.
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

from jmp_lib import paths
from jmp_lib.data.tasks import PRETRAINING_SETS
from jmp_lib.files import file_sha256
from jmp_lib.model import BackboneConfig
from jmp_lib.model.scaling import scale_modules
from jmp_lib.official.archive import Archive
from jmp_lib.official.card import model_card
from jmp_lib.official.checkpoint import NETWORKS, WEIGHTS, Checkpoint, chosen_tensors, meta_model, read_checkpoint
from jmp_lib.settings import load_profile
from jmp_lib.train.normalise import Normaliser
from jmp_lib.train.weights import write_tensors

NAMES = {"small": "jmp-s", "large": "jmp-l"}


def import_checkpoint(
    file: str | Path,
    out: str | Path | None = None,
    size: str = "auto",
    weights: str = "official",
    factors_file: str | Path | None = None,
    networks: dict[str, BackboneConfig] = NETWORKS,
) -> Path:
    """Check an official checkpoint and write its folder; returns the folder.

    out: default ``checkpoints/<jmp-s or jmp-l>`` of the data folder, with ``-<weights>`` for other weights than the
    default. size: small, large or auto (from the file). weights: official, ema or raw (:mod:`.checkpoint`).
    factors_file: a JSON of name -> scale factor that those of the checkpoint must equal. Raises ``FileNotFoundError``
    or ``ValueError``, one sentence; then nothing was changed.
    """
    if weights not in WEIGHTS:
        raise ValueError(f"weights must be one of {', '.join(WEIGHTS)}, not {weights!r}")
    if size not in ("auto", *networks):
        raise ValueError(f"size must be one of auto, {', '.join(networks)}, not {size!r}")
    archive = Archive(file)
    checkpoint = read_checkpoint(archive, size, networks)
    tensors = dict(chosen_tensors(checkpoint, weights))
    factors = read_factors_of(checkpoint, tensors)
    if factors_file is not None:
        compare_factors(factors, Path(factors_file), archive.path)
    folder = Path(out) if out else default_folder(checkpoint.size, weights)
    info = describe(checkpoint, weights, factors)
    seen = set()
    for name, tensor in tensors.items():  # entries that are one tensor in the file are two in safetensors
        tensors[name] = tensor.clone() if tensor.data_ptr() in seen else tensor.contiguous()
        seen.add(tensor.data_ptr())
    try:
        write_tensors(folder / "model", tensors, info)
        write_text(folder / "MODEL_CARD.md", model_card(info))
    except OSError as error:
        raise ValueError(f"cannot write in {folder} ({error.strerror or error}); choose another folder with --out") from None
    return folder


def default_folder(size: str, weights: str = "official") -> Path:
    """Where an imported checkpoint goes: beside the downloaded files."""
    name = NAMES.get(size, size) + ("" if weights == "official" else f"-{weights}")
    return paths.data_dir() / "checkpoints" / name


def read_factors_of(checkpoint: Checkpoint, tensors: dict) -> dict[str, float]:
    """Scale factors by the name of their module; 0 stays 0 (not fitted, acts as 1)."""
    return {name: float(tensors[f"{name}.scale_factor"]) for name in scale_modules(meta_model(checkpoint.network))}


def compare_factors(factors: dict[str, float], file: Path, source: Path) -> None:
    """Raise ``ValueError`` unless the factors of ``file`` are those of the checkpoint (0: not fitted, not compared)."""
    try:
        given = json.loads(file.read_text(encoding="utf-8"))
        given = {f"backbone.{name.removeprefix('backbone.').removesuffix('.scale_factor')}": float(value)
                 for name, value in given.items()}  # fmt: skip
    except FileNotFoundError:
        raise FileNotFoundError(f"the scale factors {file} are missing") from None
    except (ValueError, AttributeError, TypeError):
        raise ValueError(f"{file} is not a JSON of names and scale factors") from None
    for name in sorted(factors.keys() | given.keys()):
        ours, theirs = factors.get(name), given.get(name)
        if ours is None or theirs is None or ours and abs(ours - theirs) > 1e-6 * abs(theirs):
            raise ValueError(f"scale factor {name!r} is {ours} in {source} and {theirs} in {file}: they are of different "
                             "networks; leave the file out to take those of the checkpoint")


def describe(checkpoint: Checkpoint, weights: str, factors: dict[str, float]) -> dict:
    """Content of ``model.json``: as a pre-training's, with the published normalisers, and where the weights are from."""
    published = load_profile("paper")
    datasets = {}
    for key in PRETRAINING_SETS:
        s = published.pretraining.datasets[key]
        datasets[key] = {
            "name": key, "energy": Normaliser(s.energy_mean or 0.0, s.energy_std).to_dict(),
            "forces": Normaliser(0.0, s.force_std).to_dict(), "energy_loss_scale": s.energy_loss_scale,
            "force_loss_scale": s.force_loss_scale}  # fmt: skip
    model = meta_model(checkpoint.network)
    parts = {"total": model, "backbone": model.backbone, "embedding": model.embedding, "heads": model.output}
    path = checkpoint.archive.path
    return {
        "kind": "pretrain", "size": checkpoint.size, "profile": "official", "weights": weights,
        "backbone": checkpoint.network.to_dict(), "datasets": datasets,
        "graphs": {key: dataclasses.asdict(published.graphs[key]) for key in PRETRAINING_SETS},
        "scale_factors": factors, "not_fitted": [name for name, value in factors.items() if not value],
        "updates": checkpoint.updates, "epoch": checkpoint.epoch, "ema_decay": checkpoint.ema_decay,
        "parameters": {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()},
        "source": {"file": path.name, "bytes": path.stat().st_size, "sha256": file_sha256(path)}}  # fmt: skip


def write_text(path: Path, text: str) -> None:
    """Atomically write a text file."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
