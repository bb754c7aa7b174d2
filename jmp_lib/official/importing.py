"""``python -m jmp_lib import-checkpoint FILE``: an official checkpoint becomes a folder that ``jmp_lib.load`` reads.

Written: ``model.safetensors`` (every entry of the network's state dict), ``model.json`` (as a pre-training of jmp_lib
writes it) and ``MODEL_CARD.md``. Nothing in the checkpoint is executed (:mod:`jmp_lib.official.checkpoint`).
:func:`official_folder` gives the official checkpoints by name: downloaded once, verified, imported, kept.
"""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

from ase.data import atomic_numbers

from jmp_lib import facts, paths
from jmp_lib.data.fetch import Source, fetch
from jmp_lib.data.tasks import PRETRAINING_SETS
from jmp_lib.files import file_sha256, locked, reading, write_atomically
from jmp_lib.model import BackboneConfig
from jmp_lib.model.scaling import scale_modules
from jmp_lib.official.checkpoint import MEND, NETWORKS, WEIGHTS, Checkpoint, chosen_tensors, meta_model, read_checkpoint
from jmp_lib.settings import load_profile
from jmp_lib.train.normalise import Normaliser
from jmp_lib.train.weights import write_tensors

NAMES = {"small": "jmp-s", "large": "jmp-l"}
SIZES = {name: size for size, name in NAMES.items()}
# No plain checksum is published. What the storage service states for jmp-l.pt (a public log of a download): the MD5 of
# the MD5s of parts of 8 MiB, and their number.
MULTIPART = {"jmp-l": "81f27687ded066a05b58e75665d58675-447"}
PART = 8 << 20
_CHOICES = {
    "official": "as the published fine-tuning takes them: averaged (EMA), but raw in `out_blocks.<k>.layers`",
    "ema": "averaged (EMA) everywhere; the published fine-tuning starts from raw weights in `out_blocks.<k>.layers`",
    "raw": "raw (not averaged) everywhere; the published fine-tuning starts from averaged ones",
}


def import_checkpoint(
    file: str | Path,
    out: str | Path | None = None,
    weights: str = "official",
    networks: dict[str, BackboneConfig] = NETWORKS,
) -> Path:
    """Check an official checkpoint and write its folder; returns the folder.

    out: default ``checkpoints/<jmp-s or jmp-l>`` of the data folder, with ``-<weights>`` for other weights than the
    default. weights: official, ema or raw (:mod:`.checkpoint`). Raises ``FileNotFoundError`` or ``ValueError``, one
    sentence; then nothing was changed.
    """
    if weights not in WEIGHTS:
        raise ValueError(f"weights must be one of {', '.join(WEIGHTS)}, not {weights!r}")
    checkpoint = read_checkpoint(file, networks)
    with reading(checkpoint.path, MEND):
        tensors = dict(chosen_tensors(checkpoint, weights))
    modules = scale_modules(meta_model(checkpoint.network))  # a factor of 0 stays 0: not fitted, acts as 1
    factors = {name: float(tensors[f"{name}.scale_factor"]) for name in modules}
    folder = Path(out) if out else default_folder(checkpoint.size, weights)
    info = describe(checkpoint, weights, factors)
    seen = set()
    for name, tensor in tensors.items():  # entries that are one tensor in the file are two in safetensors
        tensors[name] = tensor.clone() if tensor.data_ptr() in seen else tensor.contiguous()
        seen.add(tensor.data_ptr())
    try:
        write_tensors(folder / "model", tensors, info)
        with write_atomically(folder / "MODEL_CARD.md") as stream:
            stream.write(model_card(info))
    except OSError as error:
        raise ValueError(f"cannot write in {folder} ({error.strerror or error}); choose another folder with --out") from None
    return folder


def default_folder(size: str, weights: str = "official") -> Path:
    """Where an imported checkpoint goes: beside the downloaded files."""
    name = NAMES.get(size, size) + ("" if weights == "official" else f"-{weights}")
    return paths.data_dir() / "checkpoints" / name


def describe(checkpoint: Checkpoint, weights: str, factors: dict[str, float]) -> dict:
    """Content of ``model.json``: as a pre-training's, with the published normalisers, and where the weights are from."""
    published = load_profile("paper")
    datasets, listed = {}, facts.datasets().set_index("pretraining_name")["elements"]
    for key in PRETRAINING_SETS:
        s, symbols = published.pretraining.datasets[key], str(listed[key]).split()
        datasets[key] = {
            "name": key, "energy": Normaliser(s.energy_mean or 0.0, s.energy_std).to_dict(),
            "forces": Normaliser(0.0, s.force_std).to_dict(), "energy_loss_scale": s.energy_loss_scale,
            "force_loss_scale": s.force_loss_scale,
            "elements": [atomic_numbers[x] for x in symbols] if set(symbols) <= atomic_numbers.keys() else None}  # fmt: skip
    model = meta_model(checkpoint.network)
    parts = {"total": model, "backbone": model.backbone, "embedding": model.embedding, "heads": model.output}
    path = checkpoint.path
    return {
        "kind": "pretrain", "size": checkpoint.size, "profile": "official", "weights": weights,
        "backbone": checkpoint.network.to_dict(), "datasets": datasets,
        "graphs": {key: dataclasses.asdict(published.graphs[key]) for key in PRETRAINING_SETS},
        "scale_factors": factors, "not_fitted": [name for name, value in factors.items() if not value],
        "updates": checkpoint.updates, "epoch": checkpoint.epoch, "ema_decay": checkpoint.ema_decay,
        "parameters": {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()},
        "source": {"file": path.name, "bytes": path.stat().st_size, "sha256": file_sha256(path)}}  # fmt: skip


def official_folder(name: str, progress: bool = True) -> Path:
    """Folder of the imported checkpoint ``jmp-s`` or ``jmp-l``; downloads and imports it when it is not there.

    Raises ``RuntimeError`` when the download fails (with the place to put the file by hand), ``ValueError`` when the
    file is not the one that is published.
    """
    folder = default_folder(SIZES[name])
    if (folder / "model.json").is_file() and (folder / "model.safetensors").is_file():
        return folder
    row = facts.downloads().set_index("file").loc[f"{name}.pt"]
    size = None if row.isna()["size_bytes"] else int(row["size_bytes"])
    file = fetch(paths.data_dir() / "checkpoints" / f"{name}.pt", [Source(row["url"], None, size)], progress=progress)
    with locked(f"{folder}.lock"):
        if not (folder / "model.json").is_file():
            verify(file, size, MULTIPART.get(name))
            import_checkpoint(file, folder)
    return folder


def verify(file: Path, size: int | None, etag: str | None) -> None:
    """Raise ``ValueError`` when a file has not the published size or checksum of parts (None: not published)."""
    mend = "it is damaged or another version: move it away to download it again, or import it by import-checkpoint"
    if size is not None and file.stat().st_size != size:
        raise ValueError(f"{file} has {file.stat().st_size} bytes, the published one {size}; {mend}")
    if etag is not None and multipart_etag(file) != etag:
        raise ValueError(f"{file} has not the published checksum of parts {etag}; {mend}")


def multipart_etag(file: Path, part: int = PART) -> str:
    """MD5 of the MD5s of consecutive parts, and their number: how S3 names a file that was uploaded in parts."""
    whole, count = hashlib.md5(), 0
    with open(file, "rb") as stream:
        while block := stream.read(part):
            whole.update(hashlib.md5(block).digest())
            count += 1
    return f"{whole.hexdigest()}-{count}"


def model_card(info: dict) -> str:
    """MODEL_CARD.md for the content of a ``model.json``."""
    import jinja2

    template = Path(__file__).with_name("model_card.md.j2").read_text(encoding="utf-8")
    made = jinja2.Template(template, trim_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined)
    return made.render(info, choice=_CHOICES[info["weights"]])
