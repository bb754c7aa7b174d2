"""A pre-training set beside the four: the crystals of tools/bulk_crystals.py."""

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write as write_frames
from test_matbench import crystal
from test_matbench import write as write_matbench

import jmp_lib
from jmp_lib.settings import load_profile
from jmp_lib.train.pretraining import fingerprint, pretrain, pretraining_parameters
from tools import bulk_crystals


def rock_salts(path, formulas, each=4):
    rng, frames = np.random.default_rng(0), []
    for k, formula in enumerate(formulas * each):
        atoms = Atoms(formula, [[0, 0, 0], [2.4, 2.4, 2.4]], cell=[4.8 + 0.01 * k] * 3, pbc=True)
        atoms.calc = SinglePointCalculator(atoms, energy=float(rng.normal(-5, 1)), forces=rng.normal(0, 0.3, (2, 3)))
        frames.append(atoms)
    write_frames(path, frames)
    return str(path)


def test_no_formula_of_matbench_is_trained_on_and_the_fifth_set_has_heads_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("JMP_DATA", str(tmp_path))
    write_matbench(tmp_path / "matbench_phonons.json.gz", [[crystal(a=4.0 + i), 100.0 + i] for i in range(10)])  # NaCl
    file = rock_salts(tmp_path / "crystals.xyz", ["NaCl", "NaF", "KCl", "KF", "NaBr", "KBr"])
    assert bulk_crystals.tasks_at_hand(str(tmp_path), "matbench", "qmof") == ["matbench_phonons"]
    also, about = bulk_crystals.crystals((file,), str(tmp_path))
    assert (about["read"], about["left_out"], about["train"] + about["val"], about["formulas"]) == (24, 4, 20, 5)
    train, val = ({part.group_names[number] for number in part.group} for part in (also.train, also.val))
    assert val and not train & val and "ClNa" not in train | val

    profile = load_profile("smoke", max_steps=2, pretrained={"small": None, "large": None})
    profile = profile.model_copy(update={"graphs": profile.graphs | {"bulk": profile.graphs["matbench"]}})
    assert ("also" not in pretraining_parameters(profile, "small")
            and fingerprint(profile, "small") != fingerprint(profile, "small", [also]))
    record = pretrain(profile, "small", tmp_path / "out", False, [also])
    assert record["data"][-1] == "bulk-crystals" and record["n_val"]["bulk-crystals"] == len(also.val)
    assert np.isfinite(record["final"]["bulk-crystals_force_mae"])
    assert (record["fingerprint"] == fingerprint(profile, "small", [also])
            and record["parameters"]["also"]["bulk"]["energy_loss_scale"] == 5.0)
    loaded = jmp_lib.load(tmp_path / "out" / "work" / "pretrain" / "small")
    assert list(loaded.info["datasets"])[-1] == "bulk" and len(loaded.model.output["out_energy"]) == 5
    assert loaded.info["graphs"]["bulk"]["periodic"] is True
