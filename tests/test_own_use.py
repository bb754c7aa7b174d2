"""The example that ships and the hard one; relaxation and dynamics with networks before and after fine-tuning."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.cluster import Icosahedron

from jmp_lib import records
from jmp_lib.calculator import JMPCalculator
from jmp_lib.data.exchange import from_ase
from jmp_lib.files import write_json
from jmp_lib.own import figures, use, workflow
from jmp_lib.own.workflow import read_example
from jmp_lib.settings import load_profile
from jmp_lib.train.pretraining import fingerprint
from own_models import finetuned, pretrained


@pytest.fixture
def run(tmp_path):
    values = dict.fromkeys(("source", "properties", "units", "labels_csv", "group_key", "split", "reduction"))
    return SimpleNamespace(profile=load_profile("smoke"), results_dir=tmp_path,
                           parameters=values | {"checkpoint": str(pretrained(tmp_path / "pre")),
                                                "updates": 2, "seeds": 1})


def test_the_example_is_a_molecule_with_forces_and_the_hard_one_crystals(run):
    data = workflow.read_data(run)
    assert (data.name, data.properties, len(data.structures)) == ("example", ("energy", "forces"), 100)
    run.parameters["source"] = "crystals"
    hard = workflow.read_data(run)
    assert hard.properties == ("last_phdos_peak",) and hard.structures.pbc.all() and len(hard.structures) == 80


def test_the_hard_example_says_which_simple_ways_are_beaten(run):
    ways, gained = workflow.hard_example(run)
    assert list(ways["way"]) == ["mean", "linear composition", "from scratch", "pre-trained"]
    known = {"none", "mean", "linear composition", "mean and linear composition"}
    assert (set(ways["better than"][:2]) == {""} and set(ways["better than"][2:]) <= known
            and set(gained["better than"]) <= known)
    network, mean = ways["MAE"].iloc[3], ways["MAE"].iloc[0]
    assert "mean" not in gained["better than"].iloc[0].split(" and ") or network < mean


def test_networks_relax_and_move_a_molecule(run, tmp_path):
    record = {"arm": "pre-trained", "files": {"weights": {"file": "tuned/model.safetensors"}}}
    finetuned(tmp_path / "tuned", periodic=False)
    calculators = workflow.networks(run, [record, record], read_example("example"))
    assert (list(calculators) == ["before fine-tuning", "pre-trained"]
            and isinstance(calculators["pre-trained"], JMPCalculator))
    structure = read_example("example").structures[0]
    relaxed = use.relaxation(calculators, structure, steps=2)
    assert (list(relaxed["network"]) == list(calculators) and (relaxed["steps"] <= 2).all()
            and set(relaxed["converged"]) <= {"yes", "no"})
    moved = use.dynamics(calculators, structure, picoseconds=0.03)
    assert (set(moved["network"]) == set(calculators)
            and (moved.groupby("network")["drift / meV per atom"].first() == 0).all())
    ends = use.dynamics_table(moved).set_index("network")
    assert set(ends["bonds hold"]) <= {"yes", "no"} and ends["picoseconds"].max() <= 0.03
    assert len(figures.drift(moved).axes[0].get_lines()) >= 2


class Spring(Calculator):
    """Every atom on a weak spring to where it began."""

    implemented_properties = ["energy", "forces"]

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.first = getattr(self, "first", atoms.positions.copy())
        away = atoms.positions - self.first
        self.results = {"energy": 0.5 * float((away**2).sum()), "forces": -away}


@pytest.mark.parametrize("atoms, held", [(bulk("Cu", cubic=True), "yes"), (Icosahedron("Cu", 2), "yes"),
                                         (bulk("NaCl", "rocksalt", a=5.64), "yes"),
                                         (bulk("Ar", "fcc", a=5.3, cubic=True), None)])
def test_dynamics_of_metals_salts_and_atoms_without_bonds(atoms, held):
    table = use.dynamics_table(use.dynamics({"spring": Spring()}, from_ase(atoms, where="atoms"), picoseconds=0.03))
    assert (table["picoseconds"].iloc[0] == 0.03
            and (list(table["bonds hold"]) == [held] if held else "bonds hold" not in table))
    assert " meV" in figures.drifts(table).data


@pytest.mark.parametrize("known, before", [([1, 6, 7, 8], True), ([1, 6, 7], False), (None, True)])
def test_the_network_before_fine_tuning_is_asked_where_its_head_knows_all_elements(run, tmp_path, known, before):
    file = pretrained(tmp_path / "pre") / "model.json"
    info = json.loads(file.read_text())
    for name, part in info["datasets"].items():
        part["elements"] = known if name == "ani1x" else list(range(1, 90))
    file.write_text(json.dumps(info))
    assert ("before fine-tuning" in workflow.networks(run, [], read_example("example"))) == before


def test_the_structure_in_use_holds_elements_of_the_training_part():
    data = read_example("crystals")
    split = workflow.split_own(data)
    known = set(data.structures.subset(split.train).elements)
    foreign = [int(row) for row in split.test
               if not known.issuperset(data.structures[int(row)]["atomic_numbers"].tolist())]
    assert foreign, "the hard example holds elements that its training part lacks"
    first = workflow.known_structure(data, replace(split, test=np.array([*foreign, *split.test])))
    assert known.issuperset(first["atomic_numbers"].tolist())
    assert workflow.known_structure(data, replace(split, test=np.array(foreign))) is None


def test_a_start_is_taken_only_from_the_finished_pre_training_of_the_profile(run, tmp_path, monkeypatch):
    run.parameters["checkpoint"], trained = None, []
    monkeypatch.setattr(workflow.paths, "results_dir", lambda: tmp_path / "none")

    def pretrain_all(sizes):
        trained.append(sizes)
        pretrained(tmp_path / "work" / "pretrain" / "small")
        entry = records.file_entry(tmp_path / "work" / "pretrain" / "small" / "model.safetensors", tmp_path)
        path = records.pretrain_record_path(tmp_path, "small")
        write_json(path, {"schema": records.SCHEMA, "fingerprint": fingerprint(run.profile, "small"),
                          "files": {"weights": entry}})

    run.pretrain_all = pretrain_all
    folder = workflow.checkpoint(run)
    assert (folder == tmp_path / "work" / "pretrain" / "small" and workflow.checkpoint(run) == folder
            and trained == [["small"]])
    run.profile = load_profile("smoke", seed=7)
    assert workflow.checkpoint(run) == folder and trained == [["small"]] * 2, "that of another seed is trained anew"
    run.profile = load_profile("one_gpu")
    assert workflow.checkpoint(run) == "mini-small"


def test_sentences_where_all_are_equal_and_without_labels():
    rows = pd.DataFrame({"element": ["H", "O"], "MAE": [0.656, 0.656], "unit": "D"})
    assert figures.elements(rows).data == "The same on all elements (0.656 D)."
    rows["MAE"] = [0.656, 0.7]
    assert figures.elements(rows).data.startswith("Largest on O")
    rows = pd.DataFrame({"network": ["pre-trained"], "volume / Å³ per atom": [20.0]})
    assert figures.volumes(rows).data == "Volume per atom: pre-trained 20.0 Å³."


def test_dynamics_end_where_a_bond_breaks():
    class Repulsive(Calculator):
        implemented_properties = ["energy", "forces"]

        def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
            super().calculate(atoms, properties, system_changes)
            away = atoms.positions - atoms.positions.mean(0)
            self.results = {"energy": -10.0 * float((away ** 2).sum()), "forces": 20.0 * away}

    structure = {"atomic_numbers": np.array([6, 8]), "pos": np.array([[0, 0, 0], [1.2, 0, 0]]),
                 "cell": np.zeros((3, 3)), "pbc": np.zeros(3, bool)}
    table = use.dynamics({"repulsive": Repulsive()}, structure, picoseconds=1.0)
    ends = use.dynamics_table(table).iloc[0]
    assert ends["bonds hold"] == "no" and ends["picoseconds"] < 0.5


def test_a_network_that_drives_atoms_into_each_other_ends_and_is_named():
    class Refusing(Calculator):
        implemented_properties = ["energy", "forces"]
        calls = 0

        def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
            super().calculate(atoms, properties, system_changes)
            self.calls += 1
            if self.calls > 5:
                raise ValueError("atom 0 and atom 1 are 0.05 Å apart")
            self.results = {"energy": 0.0, "forces": np.ones((2, 3)) * [[1], [-1]]}

    structure = {"atomic_numbers": np.array([6, 8]), "pos": np.array([[0, 0, 0], [1.2, 0, 0]]),
                 "cell": np.zeros((3, 3)), "pbc": np.zeros(3, bool)}
    ends = use.dynamics_table(use.dynamics({"bad": Refusing()}, structure, picoseconds=1.0)).iloc[0]
    assert ends["bonds hold"] == "no" and ends["picoseconds"] < 0.1
    assert "into each other" in use.relaxation({"bad": Refusing()}, structure)["converged"].iloc[0]


def test_the_equation_of_state_finds_the_volume_and_modulus_of_the_labels():
    class Falling(Calculator):  # has no lowest volume
        implemented_properties = ["energy"]

        def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
            super().calculate(atoms, properties, system_changes)
            self.results = {"energy": -0.1 * atoms.get_volume()}

    curves = use.equation_of_state({"labels": use.potential(), "pre-trained": Falling()},
                                   from_ase(use.shaken(0.0, 0.01, 0), where="silicon"))
    found = use.equation_of_state_table(curves).set_index("network")
    assert list(found["minimum"]) == ["yes", "no"] and found.loc["pre-trained"].iloc[1:].isna().all()
    # as published for this potential
    assert found.loc["labels"].iloc[1:3].tolist() == pytest.approx([5.432**3 / 8, 98], rel=0.01)
    assert len(figures.equation_of_state(curves).axes[0].get_lines()) >= 2


def test_both_arms_learn_silicon_where_the_data_are_no_crystals(run):
    data = workflow.read_data(run)
    made, crystal = workflow.crystal(run, data, None, [])
    assert list(made)[-2:] == ["from scratch", "pre-trained"] and "labels" in made and crystal["pbc"].all()
    run.parameters["source"] = "molecules.xyz"
    assert workflow.crystal(run, data, None, []) == ({}, None)
