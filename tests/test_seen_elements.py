"""A network knows the elements it was trained on: pre-training and fine-tuning write them, predictions ask them."""

from __future__ import annotations

import json

import pytest
from ase import Atoms
from ase.io import write

import jmp_lib
from jmp_lib.__main__ import main
from jmp_lib.predict import predictions
from jmp_lib.settings import load_profile
from jmp_lib.train.finetuning import finetune

XENON = Atoms("Xe2", [[0, 0, 0], [0, 0, 3.0]])


def test_networks_of_the_workbook_refuse_elements_that_no_training_saw(tmp_path, capsys):
    profile = load_profile("smoke")
    for arm in ("GN-OC-S", "JMP-S"):
        finetune(profile, "qm9_mu", arm, tmp_path, progress=False)
    info = {arm: json.loads((tmp_path / "work" / "finetune" / "qm9_mu" / arm / "model.json").read_text())
            for arm in ("GN-OC-S", "JMP-S")}
    pretrained = json.loads((tmp_path / "work" / "pretrain" / "small" / "model.json").read_text())
    sets = [set(s["elements"]) for s in pretrained["datasets"].values()]
    assert all(sets) and set(info["JMP-S"]["elements"]) <= {1, 6, 7, 8, 9}
    assert info["GN-OC-S"]["pretraining_elements"] is None
    assert info["JMP-S"]["pretraining_elements"] == sorted(set.union(*sets))

    copper = next(z for z in sets[0] if z not in info["JMP-S"]["elements"])
    metal = Atoms([copper, copper], [[0, 0, 0], [0, 0, 2.5]])
    folder = tmp_path / "work" / "finetune" / "qm9_mu"
    write(tmp_path / "metal.extxyz", metal)  # pre-training saw it
    assert main(["predict", str(folder / "JMP-S"), str(tmp_path / "metal.extxyz"), "-o",
                 str(tmp_path / "out.extxyz")]) == 0
    assert "not in the data that the heads of this network were trained on" in capsys.readouterr().out
    with pytest.raises(ValueError, match="neither in the fine-tuning nor in the pre-training data"):
        list(predictions(folder / "GN-OC-S", metal))
    for call in (lambda: list(predictions(folder / "JMP-S", XENON)), lambda: jmp_lib.embed(XENON, folder / "JMP-S"),
                 lambda: list(predictions(tmp_path / "work" / "pretrain" / "small", XENON, dataset="ani1x"))):
        with pytest.raises(ValueError, match="element Xe was neither in the fine-tuning"):
            call()
    assert len(list(predictions(folder / "JMP-S", XENON, check_elements=False))) == 1
