"""The pre-trained networks that come with the package: loaded by name, the start of profile mini,
put there by tools.ship."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path

import ase.build
import numpy as np
import pandas as pd
import pytest
import torch

import jmp_lib
from jmp_lib import paths, records
from jmp_lib.__main__ import main
from jmp_lib.files import file_sha256, write_json
from jmp_lib.settings import load_profile
from jmp_lib.train import finetuning, loading
from jmp_lib.train.loading import given_start
from jmp_lib.workbook import start
from tools import ship

ROOT = Path(__file__).resolve().parents[1]
NAMES = ["mini-large", "mini-small"]
SHORT = {"max_steps": 1} | {f"finetuning.defaults.{name}": 4 for name in ("max_train", "max_val", "max_test")}


@pytest.fixture
def copied(tmp_path, monkeypatch) -> Path:
    """The package's networks in a folder that a test may change."""
    monkeypatch.setattr(paths, "BACKBONES_DIR", Path(shutil.copytree(paths.BACKBONES_DIR, tmp_path / "backbones")))
    return tmp_path / "backbones"


@pytest.mark.parametrize("name", NAMES)
def test_they_load_by_name_and_their_heads_predict(name):
    assert loading.shipped_names() == NAMES
    loaded, record = jmp_lib.load(name), loading.shipped_record(name)
    assert f"mini-{loaded.info['size']}" == name and record["shipped"] == name
    assert file_sha256(loaded.path) == record["files"]["weights"]["sha256"]
    found, = jmp_lib.predictions(name, ase.build.molecule("H2O"), dataset="ani1x")
    assert np.isfinite(found["energy"]) and np.abs(found["forces"]).max() < 20


def test_the_whole_curve_and_the_card_are_there():
    for name in NAMES:
        record, curve = loading.shipped_record(name), loading.training_curve(name)
        assert (curve["update"].is_monotonic_increasing and curve["update"].iloc[-1] == record["updates"]
                and (curve["loss"] > 0).all())
        validation = pd.read_csv(paths.BACKBONES_DIR / name / "validation.csv")
        assert list(validation["step"]) == [row["step"] for row in record["history"]]
        card = (paths.BACKBONES_DIR / name / "card.md").read_text()
        assert (record["files"]["weights"]["sha256"] in card and all(set_ in card for set_ in record["data"])
                and record["note"] in card)


def test_a_wheel_contains_them_and_they_are_small():
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["jmp_lib"]
    packed = {file for pattern in patterns for file in paths.PACKAGE_DIR.glob(pattern)}
    files = [file for file in paths.BACKBONES_DIR.rglob("*") if file.is_file()]
    assert len(files) == 12 and not set(files) - packed
    assert sum(file.stat().st_size for file in files if file.suffix == ".safetensors") <= 8e6


@pytest.mark.parametrize("word, near",
                         [("mini-smal", "nearest valid name is 'mini-small'"), ("Quartz", "valid names are")])
def test_an_unknown_name_ends_in_one_sentence(word, near, tmp_path, capsys):
    with pytest.raises(FileNotFoundError, match=f"no network or folder '{word}' .*{near}.*mini-large, "
                       "mini-small, jmp-s, jmp-l, or a folder"):
        jmp_lib.load(word)
    (tmp_path / "a.xyz").write_text("1\n\nH 0 0 0\n")
    assert main(["predict", word, str(tmp_path / "a.xyz"), "-o", str(tmp_path / "b.xyz")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_tampered_and_missing_weights(copied):
    with open(copied / "mini-small" / "model.safetensors", "r+b") as stream:
        stream.seek(100_000)
        stream.write(b"\0\1\2\3")
    with pytest.raises(ValueError,
                       match="mini-small/model.safetensors is not the file that record.json beside it describes"):
        jmp_lib.load("mini-small")
    (copied / "mini-small" / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="mini-small/model.safetensors is missing; install the package again"):
        jmp_lib.load("mini-small")


def test_mini_starts_from_them_and_notices_another(copied, tmp_path):
    profile = load_profile("mini", **SHORT)
    trained, scratch = (finetuning.finetune(profile, "qm9_mu", arm, tmp_path, progress=False)
                        for arm in ("JMP-S", "GN-OC-S"))
    sha256 = loading.shipped_record("mini-small")["files"]["weights"]["sha256"]
    assert trained["start"]["pretrained"] == {"file": "work/given/small/model.safetensors", "sha256": sha256}
    assert ("pretrained" not in scratch["start"]
            and trained["start"]["scale_factors"] == scratch["start"]["scale_factors"])
    placed = records.read_record(records.pretrain_record_path(tmp_path, "small"))
    assert placed["shipped"] == "mini-small" and not (tmp_path / "work" / "pretrain").exists()
    assert finetuning.fingerprint(profile, "qm9_mu", "JMP-S", 0, tmp_path) == trained["fingerprint"]
    for name in ("model.safetensors", "record.json"):  # another pre-training of the same network
        file = copied / "mini-small" / name
        state = (torch.manual_seed(0) and jmp_lib.load("mini-small").model.state_dict()
                 if name == "model.safetensors" else None)
        if state:
            from safetensors.torch import save_file

            save_file({key: tensor + 0.01 if "out_energy" in key else tensor.clone()
                       for key, tensor in state.items()}, file)
        else:
            record = json.loads(file.read_text())
            record["files"]["weights"]["sha256"] = file_sha256(file.with_name("model.safetensors"))
            write_json(file, record)
    assert finetuning.fingerprint(profile, "qm9_mu", "JMP-S", 0, tmp_path) != trained["fingerprint"]
    assert finetuning.fingerprint(profile, "qm9_mu", "GN-OC-S", 0, tmp_path) == scratch["fingerprint"]


def test_their_networks_are_those_of_mini_and_others_are_refused(tmp_path):
    profile = load_profile("mini")
    for size in ("small", "large"):
        assert loading.shipped_record(profile.pretrained[size])["parameters"]["model"] == profile.models[size].to_dict()
    other = load_profile("mini", **{"models.small.emb_size_atom": 64})
    with pytest.raises(ValueError, match="mini-small.*another network than models.small .emb_size_atom "
                       "differ.*small: null to pre-train"):
        given_start(other, "small", tmp_path)
    assert load_profile("mini:embedded").pretrained == {} == load_profile("mini:backbone").pretrained


def test_the_live_run_is_the_recorded_one_on_the_embedded_sets(tmp_path, capsys):
    values = {"profile": "mini", "sizes": "small", "max_steps": 1, "workers": 1, "results_dir": str(tmp_path)}
    run = start(values, tuple(values))
    (record,), (live,) = run.pretrain_all(), run.pretrain_live()
    assert record["updates"] == loading.shipped_record("mini-small")["updates"] and live["updates"] == 1
    assert (not (tmp_path / "work" / "pretrain").exists()
            and (tmp_path / "live" / "records" / "pretrain" / "small.json").is_file())
    now, then = live["parameters"], record["parameters"]
    assert all(now[key] == then[key] for key in ("seed", "model", "graphs"))
    same = set(then["pretraining"]) - {"data", "datasets", "ema_decay", "schedule",
                                       "eval_batch_size", "checkpoint_every"}
    assert (all(now["pretraining"][key] == then["pretraining"][key] for key in same)
            and now["pretraining"]["data"] == "mini")
    assert now["pretraining"]["schedule"]["cosine_until"] == then["pretraining"]["schedule"]["cosine_until"]

    from jmp_lib.results import figures, views

    table = views.live_table([record], [live])
    assert list(table["run"]) == ["recorded", "live"] and table["updates"].iloc[1] == 1
    figure = figures.live_pretraining(views.live_losses(run, [record], [live]), views.live_errors([record], [live]))
    assert len(figure.axes) == 2


def run_of(folder: Path) -> Path:
    """A folder of results as ``pretrain`` leaves it, made of the networks that ship."""
    for name in NAMES:
        source, size = paths.BACKBONES_DIR / name, name.removeprefix("mini-")
        work = folder / "work" / "pretrain" / size
        work.mkdir(parents=True)
        for file in ("model.safetensors", "model.json"):
            shutil.copy(source / file, work / file)
        pd.read_csv(source / "training.csv").assign(seconds=1.0).to_csv(work / "log.csv", index=False)
        record = json.loads((source / "record.json").read_text())
        record = {key: value for key, value in record.items()
                  if key not in ("shipped", "note", "heads", "heads_left_out")}
        record["files"] = {"weights": records.file_entry(work / "model.safetensors", folder)}
        write_json(records.pretrain_record_path(folder, size), record)
    return folder


def test_one_command_ships_a_run(copied, tmp_path):
    source = run_of(tmp_path / "results")
    shutil.rmtree(copied / "mini-large")
    found = ship.ship_backbones("mini-backbone", source, note="A trial.")
    assert found == [copied / "mini-small", copied / "mini-large"] and sorted(p.name for p in copied.iterdir()) == NAMES
    for folder in found:
        assert {p.name for p in folder.iterdir()} == {"model.safetensors", "model.json", "record.json",
                                                      "training.csv", "validation.csv", "card.md"}
        assert torch.equal(*(load.model.state_dict()["embedding.atom_embedding.weight"] for load in (
            jmp_lib.load(folder.name), jmp_lib.load(source / "work" / "pretrain" / folder.name.removeprefix("mini-")))))
        assert "A trial." in (folder / "card.md").read_text()


def test_what_cannot_ship_says_why_and_changes_nothing(copied, tmp_path):
    source, before = run_of(tmp_path / "results"), file_sha256(copied / "mini-small" / "record.json")
    path = records.pretrain_record_path(source, "large")
    record = json.loads(path.read_text())
    write_json(path, record | {"parameters": {**record["parameters"], "model": {}}})
    with pytest.raises(ValueError, match="large.json is of another network than models.large of profile mini"):
        ship.ship_backbones("mini-backbone", source)
    write_json(path, record)
    (source / "work" / "pretrain" / "large" / "log.csv").unlink()
    with pytest.raises(FileNotFoundError, match="log.csv, the losses of the run, is missing"):
        ship.ship_backbones("mini-backbone", source)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="large.json is missing"):
        ship.ship_backbones("mini-backbone", source)
    assert file_sha256(copied / "mini-small" / "record.json") == before


def test_heads_of_samples_stay_out_one_by_one_where_both_would_be_too_large():
    keys = ("oc20", "oc22-published", "ani1x-published", "oc20-published")
    info = {"kind": "pretrain", "graphs": dict.fromkeys(keys, {}), "datasets": {
        key: {"elements": [number], "name": key, "energy_loss_scale": float(key != "oc20-published")}
        for number, key in enumerate(keys, 1)}}
    assert ship._spare({"n_train": {"ani1x-published": 9, "oc22-published": 2, "oc20-published": 99}}, info) == [
        "oc20-published", "oc22-published", "ani1x-published"]
    weights = {f"output.out_{kind}.{i}.0.bias": torch.full((1,), float(i))
               for kind in ("energy", "forces") for i in range(4)}
    left = ship._without(weights | {"embedding": torch.zeros(1)}, info, "oc22-published")
    assert {name: float(tensor) for name, tensor in left.items() if "forces" not in name} == {
        "embedding": 0, "output.out_energy.0.0.bias": 0, "output.out_energy.1.0.bias": 2,
        "output.out_energy.2.0.bias": 3}
    assert list(info["datasets"]) == list(info["graphs"]) == ["oc20", "ani1x-published", "oc20-published"]
    ship._without(left, info, "oc20-published")
    assert info["pretraining_elements"] == [1, 2, 3, 4], "the backbone has seen them all the same"


def test_long_curves_are_means_over_blocks():
    log = pd.DataFrame({name: np.arange(1.0, 1121.0)
                        for name in ("update", "lr", "loss", "energy", "force", "grad_norm")})
    found = ship.thinned(log.assign(update=range(1, 1121), seconds=0.1)).astype(float)
    assert (list(found["update"][-4:]) == [1000, 1050, 1100, 1120]
            and list(found["loss"][-3:]) == [1025.5, 1075.5, 1110.5])
