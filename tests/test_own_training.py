"""Fine-tuning on own data: records, the saved network, baselines and bootstrap."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from ase.io import write

import jmp_lib
from jmp_lib.own import evaluation, figures, workflow
from jmp_lib.own.data import read_own, split_own, units_of
from jmp_lib.graphs import GraphConfig
from jmp_lib.own.workflow import finetune_own, own_start, smooth_limit
from jmp_lib.pool import failures_file
from jmp_lib.settings import load_profile
from own_models import pretrained
from test_own_data import waters, with_forces


@pytest.mark.parametrize("keys, units",
                         [(["gap"], ["eV"]), (["energy", "forces"], ["eV", "eV/Å"]), (["gap", "dip"], ["eV", "D"])])
def test_both_arms_give_records_and_a_network_that_predicts_the_same(tmp_path, keys, units):
    frames = with_forces(waters())
    for i, atoms in enumerate(frames):
        atoms.info["dip"] = float(i)
    write(tmp_path / "a.extxyz", frames)
    data = read_own(tmp_path / "a.extxyz", keys, units)
    split, start = split_own(data), own_start(pretrained(tmp_path / "pre"), data)
    records = [finetune_own(load_profile("smoke"), data, split, start, arm,
                            seed=1, out_dir=tmp_path, updates=3, progress=False)
               for arm in ("from scratch", "pre-trained", "pre-trained")]
    again = records.pop()
    assert again == records[1] and (tmp_path / "own" / data.name / "pre-trained.seed1.json").is_file()
    assert set(records[1]["value"]) == set(data.properties) and records[1]["updates"] == 3
    folder = tmp_path / "work" / "own" / data.name / "pre-trained.seed1"
    found = evaluation.network_predictions(records, tmp_path)
    from jmp_lib.predict import predictions

    test = [data.structures[int(i)] for i in split.test]
    mine = [p[keys[-1]] for p in predictions(folder, test)]
    np.testing.assert_allclose(np.concatenate([np.atleast_1d(m) for m in mine]),
                               found["pre-trained"][keys[-1]], rtol=1e-4, atol=1e-4)
    if "forces" in keys:
        frames[0].calc = jmp_lib.JMPCalculator(folder)
        assert np.isfinite(frames[0].get_potential_energy())
    found = evaluation.baselines(data, split) | found
    table = evaluation.compare(data, split, found, records, units_of(data, "random"))
    assert len(table) == 4 * len(keys) - ("forces" in keys) and "better than" in table  # a composition has no forces
    assert (table["95 % from"] <= table["95 % to"]).all()
    assert set(evaluation.errors_by_element(data, split, found["pre-trained"])["element"]) == {"H", "O"}


@pytest.fixture
def gaps(tmp_path):
    """Own data with one property and their split."""
    write(tmp_path / "a.extxyz", waters())
    data = read_own(tmp_path / "a.extxyz", ["gap"], ["eV"])
    return data, split_own(data)


def test_a_sum_leaves_a_network_more_than_rounding(tmp_path):
    """Where there are as many elements as structures, least squares leaves nothing of the labels."""
    whole = workflow.read_example("crystals").structures
    train, val = whole.subset(slice(0, 20)), whole.subset(slice(20, 30))
    values = train.scalars["last_phdos_peak"]
    fitted = workflow.fit_own(train, "sum", False)["last_phdos_peak"]
    assert fitted.std > 1e-3 * values.std() and fitted.reference is not None
    targets = [fitted.normalise(v, s["atomic_numbers"]) for v, s in zip(val.scalars["last_phdos_peak"], val)]
    assert np.abs(targets).max() < 1e3
    frames = [atoms[: 2 + row % 2] for row, atoms in enumerate(waters())]
    for atoms in frames:
        atoms.info["size"] = 0.3 * len(atoms)
    write(tmp_path / "a.extxyz", frames)
    with pytest.raises(ValueError, match="'size' is 0.3 times the number of atoms of every structure"):
        workflow.fit_own(read_own(tmp_path / "a.extxyz", ["size"], ["1"]).structures, "sum", False)


def test_only_what_the_draw_of_test_structures_does_not_explain_is_claimed(gaps):
    data, split = gaps
    true, groups = data.structures.scalars["gap"][split.test], units_of(data, "random")
    signs = np.where(np.arange(len(true)) % 2, 1, -1)
    found = {"mean": {"gap": true + 0.5}, "linear composition": {"gap": true + 2.0},
             "from scratch": {"gap": true + 0.6}, "pre-trained": {"gap": true + 0.49 + 0.3 * signs}}
    records = [{"arm": arm, "seed": seed, "value": {"gap": value}} for arm, values in
               (("pre-trained", (0.49, 0.7, 0.5)), ("from scratch", (0.6, 0.6, 0.6)))
               for seed, value in enumerate(values)]
    for seeds, words in ((1, "more seeds would tell."), (3, "the error is lower with 2 of 3 seeds.")):
        gained = evaluation.gain(data, split, found, [r for r in records if r["seed"] < seeds], groups)
        assert gained["better than"].tolist() == ["linear composition"] and gained["beyond the draw"].tolist() == ["no"]
        sentence = figures.gained(gained.assign(property="logK_VRH")).data
        assert (sentence.startswith("logK_VRH: pre-training lowers")
                and sentence.endswith(f"which structures were tested may explain that; {words}"))


def test_a_file_named_like_a_task_gets_no_settings_of_that_task(tmp_path, gaps, monkeypatch):
    asked, profile = [], load_profile("smoke")

    def settings(self, family, task):
        asked.append(task)
        raise KeyError

    monkeypatch.setattr(type(profile), "finetune_settings", settings)
    data = replace(gaps[0], name="matbench_jdft2d")
    with pytest.raises(KeyError):
        finetune_own(profile, data, gaps[1], own_start(pretrained(tmp_path / "pre"), data),
                     "pre-trained", seed=1, out_dir=tmp_path)
    assert asked == ["own"]


def test_an_unknown_arm_is_told_and_not_trained(tmp_path, gaps):
    with pytest.raises(ValueError, match="unknown arm 'pretrained'; arms are pre-trained, from scratch"):
        finetune_own(load_profile("smoke"), *gaps, None, "pretrained", seed=1, out_dir=tmp_path)
    assert not (tmp_path / "own").exists()


@pytest.mark.parametrize("error, words", [
    (ValueError("structure 3 has no neighbour"), "^structure 3 has no neighbour$"),
    (TypeError("a fault of ours"), "(?s)in full:.*Traceback")])
def test_a_fault_of_the_data_ends_in_its_sentence_and_one_of_ours_in_full(tmp_path, gaps, monkeypatch, error, words):
    seen = []

    def fails(*args, progress, **more):
        seen.append(progress)
        raise error

    monkeypatch.setattr(workflow, "finetune_own", fails)
    run = SimpleNamespace(profile=load_profile("smoke", workers=1), results_dir=tmp_path,
                          parameters={"seeds": 1, "updates": 3, "reduction": None})
    with pytest.raises(ValueError if isinstance(error, ValueError) else RuntimeError, match=words):
        workflow.finetune_all(run, *gaps, None)
    assert seen == [True, True] and failures_file(tmp_path).is_file(), "one worker shows the bar of each training"


def test_no_limit_cuts_an_edge_of_a_small_molecule():
    for natoms in (2, 9, 21, 27):
        limits = GraphConfig(max_neighbors=smooth_limit(natoms)).limits(natoms)
        assert min(limits.values()) >= natoms - 1
    assert smooth_limit(9) == 30 and smooth_limit(200) == 100


def test_the_recipe_is_that_of_the_workbook(tmp_path, monkeypatch):
    """Layer-wise rates for the pre-trained arm alone, and averaged weights where the settings have a decay."""
    write(tmp_path / "a.extxyz", waters())
    data = read_own(tmp_path / "a.extxyz", ["gap"], ["eV"])
    split, start, profile = split_own(data), own_start(pretrained(tmp_path / "pre"), data), load_profile("smoke")
    defaults = profile.finetuning.defaults
    averaged = profile.model_copy(update={"finetuning": profile.finetuning.model_copy(update={
        "defaults": defaults.model_copy(update={"ema_decay": 0.5})})})
    records = {name: finetune_own(p, data, split, start, arm, seed=1,
                                  out_dir=tmp_path / name, updates=4, progress=False)
               for name, p, arm in (("plain", profile, "pre-trained"), ("averaged", averaged, "pre-trained"),
                                    ("scratch", profile, "from scratch"))}
    rates = {name: record["parameters"]["learning_rate_multipliers"] for name, record in records.items()}
    assert rates["plain"] == {"embedding": 0.3, "blocks_0": 0.3, "rest": 1.0} and rates["scratch"] == {"rest": 1.0}
    sums = {name: record["files"]["weights"]["sha256"] for name, record in records.items()}
    assert len(set(sums.values())) == 3
    assert records["plain"]["value"] != records["averaged"]["value"]
