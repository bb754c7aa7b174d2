"""A run of yours in the place of the shipped results: ``python -m tools.ship mini`` (then ``python -m tools.readme``).

The name is a folder of ``results/``: mini, mini-ablations, published_small, benchmarks; or a long pre-training,
``mini-backbone``, whose networks become ``mini-small`` and ``mini-large`` of the package. ``--source`` is another
folder of the run.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import tempfile
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd

from jmp_lib import paths
from jmp_lib.files import file_sha256, write_json
from jmp_lib.records import read_record
from jmp_lib.settings import PRETRAINING_SETS, SIZES, load_profile

BACKBONE = "-backbone"  # ending of the results of a pre-training that ships
MOST_BYTES = 8_000_000  # of the weights of both sizes
EVERY, BLOCK = 1000, 50  # updates of the curve that stay single; of a block of later ones
LICENCES = {"oc20": "CC BY 4.0", "oc22": "CC BY 4.0", "ani1x": "CC0", "transition1x": "MIT"}  # docs/licences.md


def ship(name: str, source: Path | None = None) -> Path:
    """Puts the light files of ``results/<name>`` (or ``source``) in the place of ``results/shipped/<name>``,
    and returns that.

    Checkpoints and predictions (``work``) stay out. Measurements (``benchmarks``) are taken over one by one.
    Raises FileNotFoundError where there is no such run.
    """
    source, target = source or paths.results_dir() / name, paths.shipped_dir(name)
    if name == "shipped" or not any(source.rglob("*.json")):
        raise FileNotFoundError(f"{source} holds no results to ship: run `make reproduce PROFILE={name}` first")
    left = shutil.ignore_patterns("work", "comparison.*", "*.failed.ipynb", "*.lock", "lock", "*.tmp", ".*")
    target.parent.mkdir(parents=True, exist_ok=True)
    # a kill loses nothing of what shipped
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".") as temporary:
        new, old = Path(temporary) / "new", Path(temporary) / "old"
        if target.is_dir() and not (source / "records").is_dir():
            shutil.copytree(target, new)
        shutil.copytree(source, new, ignore=left, dirs_exist_ok=True)
        for notebook in new.glob("notebooks/*.ipynb"):  # executed with another folder, they name it
            text = notebook.read_text(encoding="utf-8")
            notebook.write_text(text.replace(str(source.resolve()), f"results/{name}"), encoding="utf-8")
        if target.is_dir():
            target.rename(old)
        new.rename(target)
    return target


def ship_backbones(name: str, source: Path | None = None, note: str = "") -> list[Path]:
    """Puts the pre-trained networks of ``results/<profile>-backbone`` (or ``source``) into the package, both or none.

    note: a sentence for record and card. Raises ``FileNotFoundError`` or ``ValueError`` in one sentence where a size
    is not done, is another network than that of the profile, or where both are too large.
    """
    profile, source = name.removesuffix(BACKBONE), source or paths.results_dir() / name
    made = {size: _files(load_profile(profile), source, size) for size in SIZES}
    spare = _spare(made["small"]["record"], made["small"]["model"])
    while _bytes(made) > MOST_BYTES and spare:
        left_out = spare.pop(0)
        for files in made.values():
            files["weights"] = _without(files["weights"], files["model"], left_out)
    if _bytes(made) > MOST_BYTES:
        raise ValueError(f"the weights of {source} take {_bytes(made):,} bytes; "
                         f"at most {MOST_BYTES:,} ship: choose smaller networks")
    return [_write(paths.BACKBONES_DIR / f"{profile}-{size}", files, note) for size, files in made.items()]


def _files(profile, source: Path, size: str) -> dict:
    """What ships of one size: weights (tensors by name), model and record (plain), training and validation (tables)."""
    from jmp_lib.model.weights import load_weights

    path = source / "records" / "pretrain" / f"{size}.json"
    record, work = read_record(path), source / "work" / "pretrain" / size
    for entry in record["files"].values():
        file = source / entry["file"]
        if not file.is_file() or file_sha256(file) != entry["sha256"]:
            raise ValueError(f"{file} is missing or not the file of {path}: "
                             f"bring the whole folder {source}, or train again")
    if record["parameters"]["model"] != profile.models[size].to_dict():
        raise ValueError(f"{path} is of another network than models.{size} of profile {profile.name}: "
                         "ship them together, with the settings of one")
    if not (work / "log.csv").is_file():
        raise FileNotFoundError(f"{work / 'log.csv'}, the losses of the run, is missing: "
                                f"bring the whole folder {source}")
    model = json.loads((work / "model.json").read_text())
    record["heads"] = {key: one["name"] for key, one in model["datasets"].items()}
    return {"weights": load_weights(work / "model.safetensors"), "model": model, "record": record,
            "training": thinned(pd.read_csv(work / "log.csv")), "validation": pd.DataFrame(record["history"])}


def thinned(log: pd.DataFrame) -> pd.DataFrame:
    """Losses, rate and gradient norm per update, from update EVERY on as means over blocks;
    ``update`` is the last of each."""
    updates = log["update"].to_numpy()
    last = np.where(updates <= EVERY, updates, -(-updates // BLOCK) * BLOCK)
    columns = [name for name in ("lr", "loss", "energy", "force", "grad_norm") if name in log]
    return log.groupby(np.minimum(last, updates.max()))[columns].mean().map(
        "{:.6g}".format).rename_axis("update").reset_index()


def _bytes(made: dict) -> int:
    """Size of the weights' files."""
    from safetensors.torch import save

    return sum(len(save(files["weights"])) for files in made.values())


def _spare(record: dict, model: dict) -> list[str]:
    """Heads of published samples beside generated sets, the one first that is missed least: energies not trained,
    few structures."""
    found = {key: one for key, one in model["datasets"].items() if key not in PRETRAINING_SETS}
    return sorted(found, key=lambda key: (found[key]["energy_loss_scale"] > 0, record["n_train"][found[key]["name"]]))


def _without(weights: dict, model: dict, left_out: str) -> dict:
    """The tensors without those of one head, which is taken out of ``model``, too; what its data taught stays."""
    from jmp_lib.train.loading import seen_elements

    place = list(model["datasets"]).index(left_out)
    model.setdefault("pretraining_elements", seen_elements(model))
    for group in ("datasets", "graphs"):
        del model[group][left_out]
    found = {}
    for name, tensor in weights.items():
        head = re.fullmatch(r"(output\.out_(?:energy|forces)\.)(\d+)(\..+)", name)
        if head is None or int(head[2]) < place:
            found[name] = tensor
        elif int(head[2]) > place:
            found[f"{head[1]}{int(head[2]) - 1}{head[3]}"] = tensor
    return found


def _write(folder: Path, files: dict, note: str) -> Path:
    """One network in the place of what ``folder`` held."""
    from jmp_lib.model.weights import write_tensors

    folder.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as temporary:
        new = Path(temporary) / "new"
        write_tensors(new / "model", files["weights"], files["model"])
        for name in ("training", "validation"):
            files[name].to_csv(new / f"{name}.csv", index=False, lineterminator="\n")
        entries = {key: {"file": name, "sha256": file_sha256(new / name)} for key, name in (
            ("weights", "model.safetensors"), ("config", "model.json"), ("training", "training.csv"),
            ("validation", "validation.csv"))}
        record = {**files["record"], "shipped": folder.name, "note": note,
                  "heads_left_out": [key for key in files["record"]["heads"] if key not in files["model"]["datasets"]],
                  "trained_weights_sha256": files["record"]["files"]["weights"]["sha256"], "files": entries}
        write_json(new / "record.json", record)
        (new / "card.md").write_text(card(record), encoding="utf-8")
        (new / "model.safetensors").chmod(0o644)  # of safetensors only its owner could read it
        if folder.exists():
            folder.rename(Path(temporary) / "old")
        new.rename(folder)
    return folder


def card(record: dict) -> str:
    """card.md: what the network is, from what, how good, under which licence."""
    made = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent), trim_blocks=True,
                              lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    made.filters |= {"count": "{:,}".format, "fixed": lambda value: "" if value is None else f"{value:.3f}"}
    return made.get_template("backbone_card.md.j2").render(
        record=record, published=[key for key in record["heads"]
                                  if "published" in (key.partition("-")[2], record["data_kind"])], licences=LICENCES)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tools.ship", description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--source", type=Path, help="folder of the run (default results/NAME)")
    parser.add_argument("--note", default="", help="of a pre-training: a sentence for its record and card")
    given = parser.parse_args()
    try:
        if given.name.endswith(BACKBONE):
            print(*ship_backbones(given.name, given.source, given.note), sep="\n")
        else:
            print(ship(given.name, given.source))
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
