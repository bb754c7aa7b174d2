"""Statistics of the train parts against the published ones; which tasks can run with the files at hand."""

import os
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from jmp_lib import facts
from jmp_lib.data.structures import StructureSet
from jmp_lib.data.tasks import TASKS, Task, get_task, load_task_data, why_not
from jmp_lib.data.normalise import fit_linear_reference
from jmp_lib.units import BOHR

DATA = os.environ.get("JMP_DATA", "").partition(os.pathsep)[0]  # the first, where there are several folders
real = pytest.mark.skipif(not DATA, reason="set JMP_DATA to the folder with the published files")
REFERENCES = {key: np.array(values) for key, values in facts.hyperparameters()["qm9_atom_references"].items()}


def compare(data_root, task_ids) -> pd.DataFrame:
    """Published statistics beside those of the train parts at hand: one row for each task, fold and quantity
    (``mean`` and ``std`` of the referenced target, ``energy mean``, ``energy std``).

    ``standard errors apart``: the difference over that of a mean of so many structures; another random part of the
    same data lies within about four. Folds that the structures at hand do not serve are left out.
    """
    rows = []
    for task, fold in ((one, fold) for one in map(get_task, task_ids) for fold in range(one.n_folds)):
        try:
            train = load_task_data(task.id, "published", data_root, fold=fold).train
        except (ValueError, FileNotFoundError):
            continue
        here, published = train_statistics(train, task), published_statistics(task, fold)
        for quantity in published:
            if quantity not in here or quantity == "mean" and task.is_force_task:
                continue
            unit, sigma = ("eV", "energy std") if quantity.startswith("energy") else (task.label_unit, "std")
            apart = (here[quantity] - published[quantity]) / here[sigma] * np.sqrt(len(train))
            rows.append((task.id, fold, quantity, unit, published[quantity], here[quantity], apart, len(train)))
    return pd.DataFrame(rows, columns=["task", "fold", "quantity", "unit", "published", "here",
                                       "standard errors apart", "training structures"])


def train_statistics(train: StructureSet, task: Task) -> dict[str, float]:
    """Mean and deviation of the target of a train part, in the label's unit; energy mean and std where it has energy.

    Forces: mean 0 by definition, deviation over all components. QM9 targets with official per-element references
    (facts/hyperparameters.yaml) have them subtracted first, as the published statistics do.
    """
    if task.is_force_task:
        forces = train.forces.astype(np.float64)
        measured = {"mean": 0.0, "std": float(np.sqrt(np.mean(forces**2)))}
    else:
        values = train.scalars[task.label]
        reference = REFERENCES.get(task.label) if task.family == "qm9" else None
        if reference is not None:
            values = values - np.add.reduceat(reference[train.atomic_numbers], np.cumsum(train.natoms) - train.natoms)
        measured = {"mean": float(values.mean()), "std": float(values.std())}
    if "energy" in train.scalars:
        energy = train.scalars["energy"]
        measured |= {"energy mean": float(energy.mean()), "energy std": float(energy.std())}
    return measured


def published_statistics(task: Task, fold: int = 0) -> dict[str, float]:
    """What the official release trains with: mean and std of the target, energy mean and std where listed."""
    if task.family == "matbench":
        mean, std = facts.hyperparameters()["matbench_normalisation"][task.suffix][fold]
        return {"mean": mean, "std": std}
    row = facts.tasks().set_index("id").loc[task.id]
    named = {"mean": "mean", "std": "std", "energy mean": "energy_mean", "energy std": "energy_std"}
    return {key: float(row[column]) for key, column in named.items() if not pd.isna(row[column])}


def toy(**scalars):
    rng = np.random.default_rng(0)
    labels = {key: np.array(values, float) for key, values in scalars.items()}
    pos, forces = rng.normal(size=(2, 6, 3))
    return StructureSet.from_arrays("toy", [2, 4], pos, [1, 8, 1, 1, 6, 9], forces=forces, scalars=labels)


def test_statistics_of_a_train_part():
    data = toy(energy=[-5.0, -7.0], mu=[1.0, 2.0], U0=[-2063.43 + 0.5, -3786.36 - 0.5])
    measured = train_statistics(data, get_task("rmd17_ethanol"))
    assert measured["std"] == pytest.approx(np.sqrt(np.mean(data.forces.astype(float) ** 2)))
    assert (measured["energy mean"], measured["energy std"]) == (-6.0, 1.0)
    assert train_statistics(data, get_task("qm9_mu"))["mean"] == 1.5
    reference = REFERENCES["U0"]
    assert reference[[1, 8]].sum() == pytest.approx(-2063.43)
    assert 2 * reference[1] + reference[6] + reference[9] == pytest.approx(-3786.36)
    measured = train_statistics(data, get_task("qm9_u0"))
    assert measured["mean"] == pytest.approx(0.0, abs=1e-9) and measured["std"] == pytest.approx(0.5)


def test_published_values_come_from_the_facts():
    assert published_statistics(get_task("qm9_mu")) == {"mean": 2.674587, "std": 1.5054824}
    assert published_statistics(get_task("matbench_phonons"), 3)["mean"] == 609.7402387661577
    assert published_statistics(get_task("spice_solvated_amino_acids"))["energy std"] == 3310.6692


def test_every_task_says_what_is_missing(tmp_path):
    assert len(compare(tmp_path, TASKS)) == 0
    for task in TASKS.values():
        reason = why_not(task, tmp_path)
        assert str(tmp_path) in reason and "put " in reason or "into " in reason
        with pytest.raises(ValueError, match="data='published' needs data_root"):
            load_task_data(task.id, "published")


@real
def test_spice_statistics_are_the_published_ones_in_other_units():
    table = compare(DATA, ["spice_solvated_amino_acids"]).set_index("quantity")
    assert np.abs(table.loc[["energy mean", "energy std"], "standard errors apart"]).max() < 1e-3
    assert table.loc["std", "here"] * BOHR == pytest.approx(table.loc["std", "published"], rel=1e-5)


@real
@pytest.mark.parametrize("molecule", ["aspirin", "uracil", "toluene"])
def test_rmd17_statistics_agree_within_sampling(molecule):
    table = compare(DATA, [f"rmd17_{molecule}"])
    assert table["quantity"].tolist() == ["std", "energy mean", "energy std"]
    assert (table["standard errors apart"].abs() < 4).all()


@real
def test_phonons_and_qmof_statistics_are_of_other_selections():
    phonons = compare(DATA, ["matbench_phonons"])
    means = phonons[phonons["quantity"] == "mean"]
    assert means["published"].mean() == pytest.approx(608.26, abs=0.01)  # every fold above what any fold has
    assert (means["here"] < means["published"].min()).all()
    qmof = compare(DATA, ["qmof_bandgap"]).set_index("quantity")
    assert qmof.loc["mean", "here"] == pytest.approx(2.0890, abs=1e-3)
    assert (qmof["standard errors apart"].abs() > 4).all()


@real
@pytest.mark.skipif(not os.environ.get("JMP_SLOW"), reason="half a minute; set JMP_SLOW=1")
def test_perovskite_statistics_agree_within_sampling():
    perovskites = compare(DATA, ["matbench_perovskites"])
    assert len(perovskites) == 10 and (perovskites["standard errors apart"].abs() < 4).all()


@real
def test_published_qm9_means_are_those_of_unrounded_references():
    task = get_task("qm9_u0")
    train = load_task_data(task.id, "published", DATA).train.subset(range(30_000))
    official = published_statistics(task)
    rounded = train_statistics(train, task)
    assert rounded["mean"] == pytest.approx(-0.27, abs=0.03) and official["mean"] == pytest.approx(0.0029, abs=1e-4)
    numbers = [train[i]["atomic_numbers"] for i in range(len(train))]
    fitted = np.array(fit_linear_reference(numbers, train.scalars["U0"]))
    sums = np.add.reduceat(fitted[train.atomic_numbers], np.cumsum(train.natoms) - train.natoms)
    unreferenced = SimpleNamespace(scalars={"mu": train.scalars["U0"] - sums})
    fit = train_statistics(unreferenced, get_task("qm9_mu"))
    assert fit["mean"] == pytest.approx(official["mean"], abs=2e-3)
    assert fit["std"] == pytest.approx(official["std"], rel=0.01)
    assert np.abs(fitted[[6, 7, 8]] - REFERENCES["U0"][[6, 7, 8]]).max() < 0.1


@real
def test_which_tasks_can_run():
    can = {task.id for task in TASKS.values() if why_not(task, DATA) is None}
    assert {f"rmd17_{m}" for m in ("aspirin", "uracil")} | {"qm9_mu", "qmof_bandgap", "matbench_phonons"} <= can
    assert "matbench_jdft2d" not in can and "spice_dipeptides" not in can and "md22_dha" not in can
