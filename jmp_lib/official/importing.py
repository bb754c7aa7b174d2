"""``python -m jmp_lib import-checkpoint FILE``: an official checkpoint becomes a folder that ``jmp_lib.load`` reads.

Written: ``model.safetensors`` (every entry of the network's state dict), ``model.json`` (as a pre-training of jmp_lib
writes it) and ``MODEL_CARD.md``. Nothing in the checkpoint is executed (:mod:`jmp_lib.official.checkpoint`).
:func:`official_folder` gives the official checkpoints by name: downloaded once, imported, kept.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jinja2
from ase.data import atomic_numbers

from jmp_lib import facts, paths
from jmp_lib.data.catalog import downloads, fetch, source_of
from jmp_lib.data.normalise import Normaliser
from jmp_lib.data.tasks import PRETRAINING_SETS
from jmp_lib.files import file_sha256, locked, write_atomically
from jmp_lib.model import BackboneConfig
from jmp_lib.model.scaling import scale_modules
from jmp_lib.model.weights import write_tensors
from jmp_lib.official.checkpoint import NETWORKS, Checkpoint, meta_model, read_checkpoint
from jmp_lib.settings import load_profile

NAMES = {"small": "jmp-s", "large": "jmp-l"}
SIZES = {name: size for size, name in NAMES.items()}


def main(file: str, out: str | None) -> int:
    """The command ``import-checkpoint``."""
    print(import_checkpoint(file, out))
    return 0


def import_checkpoint(file: str | Path, out: str | Path | None = None,
                      networks: dict[str, BackboneConfig] = NETWORKS) -> Path:
    """Check an official checkpoint and write its folder, which is returned (default:
    ``checkpoints/jmp-s`` or ``jmp-l`` of the data folder); ``FileNotFoundError`` or ``ValueError`` in one
    sentence, and then nothing was changed."""
    checkpoint = read_checkpoint(file, networks)
    folder, info = Path(out or default_folder(checkpoint.size)), describe(checkpoint)
    tensors, seen = dict(checkpoint.tensors), set()
    for name, tensor in tensors.items():  # entries that are one tensor in the file are two in safetensors
        tensors[name] = tensor.clone() if tensor.data_ptr() in seen else tensor.contiguous()
        seen.add(tensor.data_ptr())
    write_tensors(folder / "model", tensors, info)
    card = jinja2.Template(Path(__file__).with_name("model_card.md.j2").read_text(encoding="utf-8"), trim_blocks=True,
                           keep_trailing_newline=True, undefined=jinja2.StrictUndefined)
    with write_atomically(folder / "MODEL_CARD.md") as stream:
        stream.write(card.render(info))
    return folder


def default_folder(size: str) -> Path:
    """Where an imported checkpoint goes: beside the downloaded files."""
    return paths.data_dir() / "checkpoints" / NAMES.get(size, size)


def describe(checkpoint: Checkpoint) -> dict:
    """Content of ``model.json``: as a pre-training's, with the published normalisers,
    and where the weights are from."""
    published = load_profile("paper")
    datasets, listed = {}, facts.datasets().set_index("pretraining_name")["elements"]
    for key in PRETRAINING_SETS:
        s, symbols = published.pretraining.datasets[key], str(listed[key]).split()
        datasets[key] = {
            "name": key, "energy": Normaliser(s.energy_mean or 0.0, s.energy_std).to_dict(),
            "forces": Normaliser(0.0, s.force_std).to_dict(), "energy_loss_scale": s.energy_loss_scale,
            "force_loss_scale": s.force_loss_scale,
            "elements": [atomic_numbers[x] for x in symbols] if set(symbols) <= atomic_numbers.keys()
            else None}  # fmt: skip
    model = meta_model(checkpoint.network)
    parts = {"total": model, "backbone": model.backbone, "embedding": model.embedding, "heads": model.output}
    path = checkpoint.path
    factors = {name: float(checkpoint.tensors[f"{name}.scale_factor"]) for name in scale_modules(model)}  # 0: acts as 1
    return {
        "kind": "pretrain", "size": checkpoint.size, "profile": "official", "weights": "official",
        "backbone": checkpoint.network.to_dict(), "datasets": datasets,
        "graphs": {key: dataclasses.asdict(published.graphs[key]) for key in PRETRAINING_SETS},
        "scale_factors": factors, "not_fitted": [name for name, value in factors.items() if not value],
        "updates": checkpoint.updates, "epoch": checkpoint.epoch, "ema_decay": checkpoint.ema_decay,
        "parameters": {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()},
        "source": {"file": path.name, "bytes": path.stat().st_size, "sha256": file_sha256(path)}}  # fmt: skip


def official_folder(name: str) -> Path:
    """Folder of the imported checkpoint ``jmp-s`` or ``jmp-l``; downloads and imports it when it is not there.

    Raises ``RuntimeError`` when the download fails (with the place to put the file by hand), ``ValueError`` when the
    file is damaged (the zip's sums) or of another network.
    """
    folder = default_folder(SIZES[name])
    if (folder / "model.json").is_file() and (folder / "model.safetensors").is_file():
        return folder
    row = next(row for row in downloads() if row["file"] == f"{name}.pt")
    file = fetch(paths.data_dir() / "checkpoints" / row["file"], [source_of(row)])
    with locked(f"{folder}.lock"):
        if not (folder / "model.json").is_file():
            import_checkpoint(file, folder)
    return folder

