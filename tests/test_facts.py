"""The facts hold together: 40 tasks, counts, units, published tables, claims, downloads."""

import re

import pytest

from jmp_lib import facts
from jmp_lib.data.catalog import downloads
from jmp_lib.data.tasks import FAMILIES, get_task
from jmp_lib.units import print_factor

TASKS = facts.tasks()


def test_forty_tasks_by_family():
    assert TASKS["id"].is_unique
    assert TASKS.groupby("family", sort=False).size().to_dict() == {
        "qm9": 12, "rmd17": 10, "md22": 7, "spice": 2, "matbench": 8, "qmof": 1}
    assert tuple(dict.fromkeys(TASKS["family"])) == tuple(FAMILIES)
    assert all(task.startswith(f"{family}_") for task, family in zip(TASKS["id"], TASKS["family"]))


def test_counts_add_up():
    assert (TASKS[["n_train", "n_val", "n_test"]].sum(axis=1) == TASKS["n_total"]).all()
    for task in TASKS.itertuples():
        folds = get_task(task.id).fold_counts or ((task.n_train, task.n_val, task.n_test),)
        assert len(folds) == get_task(task.id).n_folds == (5 if task.family == "matbench" else 1)
        assert folds[0] == (task.n_train, task.n_val, task.n_test)
        assert all(sum(fold) == task.n_total for fold in folds)
        if task.family == "matbench":
            assert sum(test for _, _, test in folds) == task.n_total  # every crystal is tested once


def test_heads_and_settings_fit_the_family():
    forces = TASKS["label"] == "forces"
    assert set(TASKS.loc[forces, "family"]) == {"rmd17", "md22", "spice"}
    assert set(TASKS.loc[forces, "head_packaged"]) == {"gradient_forces"}
    direct = TASKS.loc[TASKS["head_run_script"] == "direct_forces", "id"]
    assert set(direct) == {"md22_ac-ala3-nhme", "md22_double-walled-nanotube"}
    assert list(TASKS.loc[TASKS["head_run_script"] == "spatial_extent", "id"]) == ["qm9_r2"]
    assert list(TASKS.loc[TASKS["reduction_run_script"] == "max", "id"]) == ["matbench_phonons"]
    assert set(TASKS.loc[TASKS["periodic"], "family"]) == {"matbench", "qmof"}
    assert TASKS.loc[forces, "force_coefficient"].notna().all()
    assert (TASKS.loc[TASKS["family"] != "matbench", "std"] > 0).all()


def test_every_label_unit_can_be_printed():
    factors = {task.id: print_factor(task.unit_in_loader, task.unit_printed) for task in TASKS.itertuples()}
    assert factors["qm9_u0"] == factors["rmd17_ethanol"] == factors["matbench_mp_e_form"] == 1000.0
    assert factors["qm9_mu"] == factors["matbench_jdft2d"] == factors["qmof_bandgap"] == 1.0


def test_atom_references_belong_to_the_tasks_that_use_them():
    references = facts.hyperparameters()["qm9_atom_references"]
    assert set(references) == set(TASKS.loc[TASKS["atom_reference"], "label"])
    assert all(len(values) == 10 for values in references.values())


def test_published_results_cover_every_task_and_arm():
    table = facts.published()
    assert set(table["task"]) == set(TASKS["id"])
    assert not table.duplicated(["task", "model", "statistic"]).any()
    assert (table["value"].dropna() > 0).all()
    assert table.loc[table["value"].isna(), "note"].notna().all()  # a blank says why it is blank
    units = TASKS.set_index("id")["unit_printed"]
    assert (table["unit"] == table["task"].map(units)).all()
    arms = table[table["model"].isin(facts.ARMS) & table["statistic"].isin(["value", "fold0"])]
    assert len(arms) == 160 and arms["value"].notna().all()
    bold = table[table["bold"]].groupby("table").size().to_dict()
    assert bold == {2: 12, 3: 11, 4: 9, 5: 9}  # table 3: ten rows, one tie


def test_values_of_others_name_a_task_and_their_source():
    others = facts.third_party()
    assert (others["task"].isin(facts.tasks()["id"]).all() and others["source"].notna().all()
            and (others["value"] > 0).all())


def test_claims_are_distinct_and_name_known_models():
    claims = facts.claims()
    assert claims["id"].is_unique
    models = set(facts.published()["model"])
    gains = claims[claims["rule"].isin(["mean_gain", "mean_gain_over_better"])]
    for claim in gains.itertuples():
        assert {*claim.reference.split("|"), claim.new} <= models
        assert claim.family in ("", *tuple(FAMILIES))


def test_downloads_have_addresses_and_well_formed_checksums():
    known = {"OC20", "OC22", "ANI-1x", "Transition-1x", "QM9", "rMD17", "MD22", "SPICE", "MatBench", "QMOF", "JMP"}
    assert {row["dataset"] for row in downloads()} == known
    for row in downloads():
        assert row["file"] == row["file"].strip() and "/" not in row["file"]
        assert row["url"].startswith("http") or row["use"] == "folds"
        assert re.fullmatch(r"([0-9a-f]{32})?", row["md5"]), row["file"]
        assert re.fullmatch(r"([0-9a-f]{64})?", row["sha256"]), row["file"]


def test_pretraining_sizes_give_the_published_sampling_probabilities():
    sizes = facts.datasets().dropna(subset=["pretraining_name"]).set_index("pretraining_name")["n_train_paper"]
    assert sizes.sum() == 120_000_000
    root = (sizes / sizes.sum()) ** (1 / facts.hyperparameters()["pretraining"]["sampling"]["temperature"])
    probabilities = (root / root.sum()).to_dict()
    assert probabilities["oc20"] == pytest.approx(0.5745502392, abs=1e-9)
    assert probabilities["ani1x"] == pytest.approx(0.0812536741, abs=1e-9)


def test_readers_hand_out_copies():
    table = facts.tasks()
    table.loc[0, "id"] = "changed"
    assert facts.tasks().loc[0, "id"] == "qm9_mu"
