"""``python -m jmp_lib predict`` and ``jmp_lib.embed``: order, units, batching, nothing half-written."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.io import read, write
from torch_geometric.data import Data

import jmp_lib
from jmp_lib.__main__ import main
from jmp_lib.settings import load_profile
from jmp_lib.train.finetuning import finetune
from own_models import finetuned, pretrained


@pytest.fixture
def frames():
    names = ["H2O", "CH4", "CH3CH2OH", "NH3", "CO2"]
    return [molecule(name) for name in names]


@pytest.mark.parametrize("kind", ["scalar", "gradient_forces"])
def test_file_in_file_out_keeps_order_and_batching_changes_nothing(tmp_path, frames, kind):
    model, source = finetuned(tmp_path / "model", kind), tmp_path / "in.extxyz"
    for i, atoms in enumerate(frames):
        atoms.info["label"] = i
    write(source, frames)
    found = []
    for size in ("2", "32"):
        target = tmp_path / f"out{size}.extxyz"
        assert main(["predict", str(model), str(source), "-o", str(target), "--batch-size", size]) == 0
        found.append(read(target, ":"))
    for one, other, atoms in zip(*found, frames):
        assert one.info["label"] == atoms.info["label"] and one.get_chemical_formula() == atoms.get_chemical_formula()
        key = "jmp_gap" if kind == "scalar" else "jmp_energy"
        assert one.info[key] == pytest.approx(other.info[key], rel=1e-4, abs=1e-4)
        if kind != "scalar":
            np.testing.assert_allclose(one.arrays["jmp_forces"], other.arrays["jmp_forces"], atol=1e-4)
    assert len(found[0]) == len(frames)


@pytest.mark.parametrize("task, words, energy", [("md22_ac-ala3-nhme", "gives no energy", False),
                                                 ("rmd17_ethanol", "energy differences between structures", True)])
def test_tasks_trained_on_forces_alone_say_so_once(tmp_path, frames, capsys, task, words, energy):
    finetune(load_profile("smoke"), task, "GN-OC-S", tmp_path, progress=False)
    folder = tmp_path / "work" / "finetune" / task / "GN-OC-S"
    write(tmp_path / "in.extxyz", [frames[2]] * 3)
    assert main(["predict", str(folder), str(tmp_path / "in.extxyz"), "-o", str(tmp_path / "out.extxyz")]) == 0
    assert capsys.readouterr().out.count(words) == 1
    for atoms in read(tmp_path / "out.extxyz", ":"):
        assert atoms.arrays["jmp_forces"].shape == (9, 3) and ("jmp_energy" in atoms.info) == energy


def test_a_bad_structure_is_named_and_nothing_is_written(tmp_path, frames, capsys):
    model, source = finetuned(tmp_path / "model"), tmp_path / "in.extxyz"
    write(source, [*frames, Atoms("HH", [[0, 0, 0], [0, 0, 50]])])
    assert main(["predict", str(model), str(source), "-o", str(tmp_path / "out.extxyz")]) == 2
    assert "structure 5: atom 0 (H) has no other atom" in capsys.readouterr().err
    assert not list(tmp_path.glob("out*"))


def test_any_data_of_torch_geometric_is_a_structure(tmp_path, frames):
    model = finetuned(tmp_path, periodic=False)
    foreign = [Data(pos=torch.tensor(a.positions, dtype=torch.float32), z=torch.tensor(a.numbers)) for a in frames]
    for one, other in zip(jmp_lib.predictions(model, frames), jmp_lib.predictions(model, foreign), strict=True):
        assert one["energy"] == other["energy"]


def test_embeddings_have_a_row_per_atom(tmp_path, frames):
    found = jmp_lib.embed(frames, pretrained(tmp_path), batch_size=2)
    assert [len(n) for n in found.nodes] == [len(a) for a in frames] and found.structures.shape == (5, 8)
    alone = jmp_lib.embed(frames[3], tmp_path)
    np.testing.assert_allclose(found.nodes[3], alone.nodes[0], atol=1e-4)
