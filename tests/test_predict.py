"""``python -m jmp_lib predict`` and ``jmp_lib.embed``: order, units, batching, nothing half-written."""

from __future__ import annotations

import errno

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.io import read, write
from torch_geometric.data import Data

import jmp_lib
from jmp_lib import predict
from jmp_lib.__main__ import main
from jmp_lib.records import unpacked_errors
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
    record = finetune(load_profile("smoke"), task, "GN-OC-S", tmp_path, progress=False)
    errors, weights = unpacked_errors(record).T  # of each test structure, from which the intervals of gains come
    assert (len(errors) == record["n_test"]
            and np.average(errors, weights=weights) == pytest.approx(record["value"], rel=1e-3))
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
    assert f"error: {source}: frame 5: atom 0 (H) has no other atom" in capsys.readouterr().err
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


def command(model, source, target) -> int:
    return main(["predict", str(model), str(source), "-o", str(target), "--batch-size", "2"])


@pytest.mark.parametrize("ends", ["killed", "disk full", "part longer", "source changed"])
def test_the_same_command_goes_on_with_the_same_bytes(tmp_path, frames, capsys, monkeypatch, ends):
    """Windows of 4 structures; the first run ends in the third."""
    monkeypatch.setattr(predict, "WINDOW", 2)
    model, source, target = (finetuned(tmp_path / "model", periodic=False), tmp_path / "in.extxyz",
                             tmp_path / "new" / "out.extxyz")
    write(source, [*frames, *frames[::-1], *frames])
    assert command(model, source, tmp_path / "whole.extxyz") == 0
    calls, error = [], OSError(errno.ENOSPC, "", str(target)) if ends == "disk full" else KeyboardInterrupt()
    run = predict.Predictor.run

    def counted(self, items):
        calls.append(len(items))
        if len(calls) == 6 and len(list((tmp_path / "new").glob("*"))) > 1:
            raise error
        return run(self, items)

    monkeypatch.setattr(predict.Predictor, "run", counted)
    assert command(model, source, target) == (2 if ends == "disk full" else 130)
    assert not target.exists() and target.with_name("out.extxyz.part").exists()
    if ends == "disk full":
        assert f"error: cannot write {target}: the disk is full" in capsys.readouterr().err
    if ends == "part longer":  # a window that was cut short by the kill
        with open(target.with_name("out.extxyz.part"), "a") as stream:
            stream.write("3\nProperties=species:S:1:po")
    if ends == "source changed":
        write(source, [*frames, *frames, *frames])
        assert command(model, source, tmp_path / "whole.extxyz") == 0
    calls[:] = [0] * 10
    assert command(model, source, target) == 0
    assert sum(calls) == (15 if ends == "source changed" else 7)
    assert target.read_bytes() == (tmp_path / "whole.extxyz").read_bytes() and list(target.parent.iterdir()) == [target]


def test_what_was_said_of_elements_is_said_after_a_kill_too(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(predict, "WINDOW", 1)
    model, source, target = (finetuned(tmp_path / "model", periodic=False),
                             tmp_path / "in.extxyz", tmp_path / "out.extxyz")
    write(source, [molecule(name) for name in ("SH2", "H2O", *["CH4"] * 6)])
    usual, run, calls = predict.Predictor.__init__, predict.Predictor.run, []

    def narrow(self, *args, **kwargs):
        usual(self, *args, **kwargs)
        self.own_elements = {1, 6, 8}

    def killed(self, items):
        calls.append(len(items))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return run(self, items)

    monkeypatch.setattr(predict.Predictor, "__init__", narrow)
    monkeypatch.setattr(predict.Predictor, "run", killed)
    assert command(model, source, target) == 130 and "note: S:" not in capsys.readouterr().out
    assert command(model, source, target) == 0 and "note: S: not in the data" in capsys.readouterr().out


def test_structures_are_taken_as_they_are_needed(tmp_path, frames):
    model, taken = finetuned(tmp_path, periodic=False), []
    stream = jmp_lib.predictions(model, (taken.append(i) or frames[i % 5] for i in range(10**9)), batch_size=2)
    first = [next(stream) for _ in range(3)]
    assert len(taken) == 2 * predict.WINDOW
    alone = [next(jmp_lib.predictions(model, atoms)) for atoms in frames[:3]]
    assert [p["energy"] for p in first] == pytest.approx([p["energy"] for p in alone], rel=1e-5)


def test_where_nothing_can_be_written(tmp_path, frames, capsys):
    model, source = finetuned(tmp_path / "model", periodic=False), tmp_path / "in.extxyz"
    write(source, frames)
    before = source.read_bytes()
    (tmp_path / "folder.extxyz").mkdir()
    (tmp_path / "file").write_text("")
    for target, words in (("in.extxyz", "the file of structures itself"),
                          ("folder.extxyz", "folder.extxyz: a folder is in the way"),
                          ("file/out.extxyz", "out.extxyz: a file is in the way")):
        assert command(model, source, tmp_path / target) == 2
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert said.startswith("error: ") and words in said
    assert source.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.extxyz", "in.extxyz", "model"]
    source.write_text("")
    assert command(model, source, tmp_path / "out.extxyz") == 2 and "in.extxyz" in capsys.readouterr().err
    assert not list(tmp_path.glob("out*"))


def test_a_prediction_that_is_no_number_is_never_written(tmp_path, frames, capsys, monkeypatch):
    model, source = finetuned(tmp_path / "model", periodic=False), tmp_path / "in.extxyz"
    write(source, frames)
    monkeypatch.setattr(predict.Predictor, "physical",
                        lambda self, name, value, numbers: np.nan if len(numbers) == 9 else 1.0)
    assert command(model, source, tmp_path / "out.extxyz") == 2
    assert f"{source}: frame 2: the network gives energy that is not finite" in capsys.readouterr().err
    assert not list(tmp_path.glob("out*"))


def test_memory_that_runs_out_halves_the_batch(tmp_path, frames, monkeypatch):
    model = predict.Predictor(finetuned(tmp_path, periodic=False))
    expected, forward, seen = [p["energy"] for p in predict.predictions(model, frames)], model.model.forward, []

    def small(batch):
        seen.append(len(batch["natoms"]))
        if seen[-1] > 2:
            raise torch.OutOfMemoryError("out of memory")
        return forward(batch)

    monkeypatch.setattr(model.model, "forward", small)
    assert [p["energy"] for p in predict.predictions(model, frames)] == pytest.approx(expected, rel=1e-5)
    assert seen == [5, 2, 2, 1]


def test_shipped_weights_refuse_elements_of_no_training(tmp_path, capsys):
    """They say which elements they saw by their reference energies."""
    model, source = "mini-small", tmp_path / "PuO2.xyz"
    source.write_text("3\n\nO 1.9 0 0\nPu 0 0 0\nO -1.9 0 0\n")
    arguments = ["predict", str(model), str(source), "-o", str(tmp_path / "out.extxyz"), "--dataset", "transition1x"]
    assert main(arguments) == 2
    assert f"{source}: frame 0: atom 1: element Pu was neither" in capsys.readouterr().err
    with pytest.raises(ValueError, match="structure 0: atom 1: element Cu was not in the data of the heads"):
        next(jmp_lib.predictions(model, Atoms("HCu", [[0, 0, 0], [0, 0, 1.5]]), dataset="transition1x"))
    assert main([*arguments, "--any-element"]) == 0
    assert len(jmp_lib.embed(Atoms("HCu", [[0, 0, 0], [0, 0, 1.5]]), model).nodes) == 1
