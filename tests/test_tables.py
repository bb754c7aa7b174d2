"""Tables: published claims follow from the published tables; own columns follow from (synthetic) records."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from jmp_lib import facts
from jmp_lib.records import SCHEMA
from jmp_lib.results import views
from jmp_lib.results.claims import claims_table, scoreboard, standing, verdict
from jmp_lib.results.speedup import shortened, soonest, speedup_table, speedup_totals
from jmp_lib.results.style import significant
from jmp_lib.results.tables import (
    folds_table,
    gains_table,
    paper_table,
    printed_table,
    scaling_table,
    write_tables,
)
from jmp_lib.results.values import (
    ALL_TASKS_COLUMNS,
    BESIDES,
    all_tasks_table,
    gain,
    gains_summary,
    own_values,
    published_values,
    relative_improvement,
)

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
LADDER = [(0, 0.0, 9.0), (10, 5.0, 4.0), (20, 10.0, 2.0), (30, 15.0, 2.5)]


def write_record(results, task, arm, value, unit, fold=0, history=LADDER, **more):
    """A synthetic record; ``history`` is a list of (step, seconds, val_metric)."""
    name = f"{arm}.json" if fold == 0 else f"{arm}.fold{fold}.json"
    path = results / "records" / "finetune" / task / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({
        "schema": SCHEMA, "kind": "finetune", "profile": "mini", "task": task, "arm": arm, "metric": "MAE",
        "value": value, "unit": unit, "data": "set-mini (surrogate labels)", "data_kind": "generated", "n_train": 80,
        "n_val": 10, "n_test": 10, "seed": 1, "wall_time_s": 15.0, "model": {"n_parameters": 1234},
        "history": [{"step": s, "seconds": t, "val_metric": v} for s, t, v in history], **more}))
    return path


# published claims from the published tables

@pytest.mark.parametrize("claim, value", [
    ("avg_gain_over_scratch", 58.69), ("avg_gain_small", 45.52), ("avg_gain_large_over_small_scratch", 56.41),
    ("avg_gain_over_best_scratch", 55.31), ("scaling_scratch", -8.24), ("scaling_pretrained", 21.07),
    ("avg_gain_over_scratch_qm9", 49.69), ("avg_gain_over_scratch_rmd17", 78.08), ("avg_gain_over_scratch_md22", 61.03),
    ("avg_gain_over_scratch_spice", 74.67), ("avg_gain_over_scratch_matbench", 45.08),
    ("avg_gain_over_scratch_qmof", 33.33), ("sota_34_of_40", 34), ("speedup_12x", 12.0), ("pretraining_size", 120),
    ("qm9_half_error", 25.45), ("runs_72", 72), ("model_size_large", 234.27), ("model_size_small", 28.87),
])
def test_claims_follow_from_the_published_tables(claim, value):
    row = claims_table().set_index("id").loc[claim]
    assert row["recomputed_value"] == pytest.approx(value, abs=0.005)


def test_claims_agree_with_what_is_printed_but_for_one():
    table = claims_table()
    assert list(table.loc[table["agrees"] == "no", "id"]) == ["qm9_half_error"]
    assert len(table[table["agrees"] == "yes"]) == 9
    assert (table[["own", "own_data"]] == "").all(axis=None) and table["own_value"].isna().all()


def test_34_of_40_needs_the_tie_and_the_five_fold_means():
    assert dict(standing(published_values(five_fold_mean=True), "JMP-L").value_counts()) == {
        "best": 33, "tied": 1, "behind": 6}
    assert (standing(published_values(), "JMP-L") != "behind").sum() < 34


def test_published_gains_by_family_and_counts():
    table = gains_summary(published_values()).set_index(["comparison", "family"])
    assert table.loc[("JMP-S over GN-OC-S", "all"), "tasks_improved"] == 39
    assert table.loc[("GN-OC-L over GN-OC-S", "all"), "tasks_improved"] == 8
    assert table.loc[("JMP-L over JMP-S", "all"), "tasks_improved"] == 38
    expected = {"qm9": -10.43, "rmd17": -5.27, "md22": -15.35, "spice": -25.50, "matbench": 0.34, "qmof": 4.00}
    for family, value in expected.items():
        assert table.loc[("GN-OC-L over GN-OC-S", family), "mean_gain_percent"] == pytest.approx(value, abs=0.005)
    small = {"qm9": 38.13, "rmd17": 64.69, "md22": 34.23, "spice": 60.28, "matbench": 41.01, "qmof": 28.00}
    for family, value in small.items():
        assert table.loc[("JMP-S over GN-OC-S", family), "mean_gain_percent"] == pytest.approx(value, abs=0.005)


def test_relative_improvement_definition():
    assert relative_improvement(4.0, 1.0) == 75.0
    assert relative_improvement(2.0, 3.0) == -50.0
    values = pd.DataFrame({"GN-OC-S": [4.0, 2.0, np.nan], "JMP-S": [1.0, 3.0, 1.0]}, index=["qm9_mu", "qm9_g", "qm9_h"])
    found = gain(values, "JMP-S", "GN-OC-S")
    assert (found.mean(), found.count()) == (12.5, 2)  # equal weights; a missing reference is left out
    assert (list(gain(values, "JMP-S", "GN-OC-S", "qm9").index) == list(values.index)
            and gain(values, "JMP-S", "GN-OC-S", "md22").empty)


# own tables from records

def test_all_tasks_table_has_one_row_per_task_and_arm_in_printed_units(tmp_path):
    write_record(tmp_path, "rmd17_ethanol", "JMP-S", 0.0123, "eV/A", baseline=0.9)
    write_record(tmp_path, "rmd17_ethanol", "GN-OC-S", 0.05, "eV/A")
    write_record(tmp_path, "qm9_mu", "GN-OC-S", 0.4, "D")
    write_record(tmp_path, "qm9_u0", "GN-OC-S", 250.0, "meV")  # already in the printed unit
    table = all_tasks_table(tmp_path / "records")
    assert list(table.columns) == [*ALL_TASKS_COLUMNS, *BESIDES]
    assert list(zip(table["task"], table["arm"])) == [
        ("qm9_mu", "GN-OC-S"), ("qm9_u0", "GN-OC-S"), ("rmd17_ethanol", "GN-OC-S"), ("rmd17_ethanol", "JMP-S")]
    assert list(table["value"]) == pytest.approx([0.4, 250.0, 50.0, 12.3])
    assert list(table["unit"]) == ["D", "meV", "meV/A", "meV/A"]
    assert table["trivial"].iloc[3] == pytest.approx(900.0) and np.isnan(table["trivial"].iloc[0])
    assert table["record"].iloc[3] == "records/finetune/rmd17_ethanol/JMP-S.json"
    assert table["family"].iloc[3] == "rmd17" and table["data"].iloc[0] == "set-mini (surrogate labels)"


def test_no_records_give_empty_tables(tmp_path):
    assert all_tasks_table(tmp_path / "records").empty
    assert own_values(all_tasks_table(tmp_path / "records")).shape == (40, 4)
    assert speedup_table(tmp_path / "records").empty
    assert speedup_totals(speedup_table(tmp_path / "records")).empty


def test_matbench_value_is_fold_0_and_the_mean_needs_five_folds(tmp_path):
    for fold in range(5):
        write_record(tmp_path, "matbench_mp_e_form", "JMP-S", 0.1 * (fold + 1), "eV/atom", fold=fold)
    for fold in range(4):
        write_record(tmp_path, "matbench_phonons", "JMP-S", 10.0, "cm^-1", fold=fold)
    table = all_tasks_table(tmp_path / "records").set_index("task")
    assert table.loc["matbench_mp_e_form", "value"] == pytest.approx(100.0)
    assert table.loc["matbench_mp_e_form", "mean_over_folds"] == pytest.approx(300.0)
    assert np.isnan(table.loc["matbench_phonons", "mean_over_folds"])
    paper = paper_table(4, table.reset_index()).set_index(["task", "statistic"])["own JMP-S"]
    assert paper[("matbench_mp_e_form", "fold0")] == pytest.approx(100.0)
    assert paper[("matbench_mp_e_form", "mean")] == pytest.approx(300.0)
    assert np.isnan(paper[("matbench_phonons", "mean")])


@pytest.mark.parametrize("number, rows", [(2, 12), (3, 10), (4, 17), (5, 9)])
def test_paper_tables_keep_published_and_own_apart_and_leave_blanks(tmp_path, number, rows):
    write_record(tmp_path, "rmd17_toluene", "JMP-L", 0.002, "eV/A")
    write_record(tmp_path, "qm9_r2", "JMP-L", 5.0, "a0^2")
    write_record(tmp_path, "qmof_bandgap", "JMP-L", 0.4, "eV")
    write_record(tmp_path, "spice_dipeptides", "JMP-L", 0.03, "eV/A")
    table = paper_table(number, all_tasks_table(tmp_path / "records"))
    assert len(table) == rows
    assert {f"published {arm}" for arm in facts.ARMS} | {f"own {arm}" for arm in facts.ARMS} < set(table.columns)
    assert table["own JMP-L"].notna().sum() == 1
    assert table[["own GN-OC-S", "own GN-OC-L", "own JMP-S"]].isna().all(axis=None)
    ran = table[table["own JMP-L"].notna()].iloc[0]
    assert ran["own data"] == "set-mini (surrogate labels)" and ran["own n_train"] == "80"
    assert (table.loc[table["own JMP-L"].isna(), "own data"] == "").all()
    assert ("bohr" in ran["note"]) == (number == 5)


def test_printed_tables_keep_the_papers_digits_and_say_which_data_and_fold(tmp_path):
    for arm, value in zip(facts.ARMS, (0.4, 0.35, 0.31, 0.3049)):
        write_record(tmp_path, "matbench_mp_gap", arm, value, "eV", fold=1)
    table, notes = printed_table(4, all_tasks_table(tmp_path / "records"))
    row = table[table["task"].str.startswith("mp_gap<sup>")].iloc[0]
    assert row["published coGN"] == "0.153" and row["own JMP-L"] == "<b>0.305</b>" and row["own GN-OC-S"] == "0.400"
    assert ("ours: set-mini (surrogate labels), 80 training and 10 test structures; fold 1 instead of 0"
            in dict(notes).values())
    others = table.set_index("task")["JMP fine-tuned by MatterTune (fold 0)"]
    assert others.filter(like="jdft2d").tolist() == ["20.79", ""] and not others.filter(like="mp_gap").any()
    assert any("MatterTune (MIT), examples" in words for words in dict(notes).values())
    assert not any("MatterTune" in name for name in printed_table(3)[0])
    assert (printed_table(2)[0].loc[0, "published GN-OC-S"] == "0.020"
            and "<b>0.008</b>" in set(printed_table(2)[0]["published JMP-L"]))
    salicylic = dict(printed_table(3)[1])
    assert any("Allegro: lowest value of the row but not bold" in words for words in salicylic.values())


def test_folds_that_were_run_are_shown_one_by_one(tmp_path):
    for fold in range(3):
        write_record(tmp_path, "matbench_phonons", "JMP-S", 10.0 + fold, "cm^-1", fold=fold)
        write_record(tmp_path, "matbench_phonons", "GN-OC-S", 20.0, "cm^-1", fold=fold)
    write_record(tmp_path, "matbench_mp_gap", "JMP-S", 1.0, "eV", fold=1)
    table = folds_table(tmp_path / "records")
    assert (list(table["fold"]) == [0, 1, 2]
            and list(table["JMP-S over GN-OC-S / %"]) == pytest.approx([50.0, 45.0, 40.0]))
    assert folds_table(tmp_path / "none").empty


@pytest.mark.parametrize("value, text", [(1535.2, "1540"), (0.4, "0.400"), (85.6, "85.6"), (100.0, "100"),
                                         (99.96, "100"), (0.00123, "0.00123"), (float("nan"), "")])
def test_own_values_have_three_significant_digits(value, text):
    assert significant(value) == text


@pytest.mark.parametrize("profile", [{"profile": "smoke"}, {"profile": "mine", "comparable": False}])
def test_numbers_that_mean_nothing_never_stand_beside_others(profile, tmp_path):
    for arm in facts.ARMS:
        write_record(tmp_path, "rmd17_ethanol", arm, 0.1, "eV/A", **profile)
    own = all_tasks_table(tmp_path / "records")
    assert len(own) == 4  # still listed, each with its profile
    for table in (paper_table(3, own), gains_table(own)):
        assert table.filter(regex="^own (GN|JMP)").isna().all(axis=None)
        assert table.filter(regex="^published").notna().any(axis=None)
    assert (scaling_table(own)["own_tasks"] == 0).all()
    assert (claims_table(tmp_path / "records")["own"] == "").all()


def test_own_claims_are_computed_and_labelled(tmp_path):
    for arm, value in zip(facts.ARMS, (4.0, 5.0, 2.0, 1.0)):
        write_record(tmp_path, "qm9_mu", arm, value, "D")
    for arm, value in zip(facts.ARMS, (1.0, 1.0, 1.0, 2.0)):
        write_record(tmp_path, "qm9_alpha", arm, value, "a0^3")
    table = claims_table(tmp_path / "records").set_index("id")
    assert table.loc["avg_gain_over_scratch", "own_value"] == pytest.approx((80.0 - 100.0) / 2)
    assert table.loc["avg_gain_over_scratch", "own_tasks"] == 2
    assert table.loc["avg_gain_small", "own_value"] == pytest.approx(25.0)
    assert table.loc["avg_gain_over_best_scratch", "own_value"] == pytest.approx((75.0 - 100.0) / 2)
    assert table.loc["sota_34_of_40", "own_value"] == 1 and "four arms" in table.loc["sota_34_of_40", "own"]
    assert table.loc["avg_gain_over_scratch", "own_data"] == "generated data, profile mini"
    assert table.loc["avg_gain_over_scratch_rmd17", "own"] == ""  # nothing was run there
    assert (table.loc["ablation_full", "own"] == ""
            and "(table 6 per a second-hand note)" in table.loc["ablation_swl", "published"])
    assert table.loc["qm9_half_error", "own"] == ""
    assert table.loc["avg_gain_over_scratch", "recomputed_value"] == pytest.approx(58.69, abs=0.005)


def test_gains_and_scaling_stand_beside_the_published_ones(tmp_path):
    for arm, value in zip(facts.ARMS, (4.0, 5.0, 2.0, 1.0)):
        write_record(tmp_path, "qm9_mu", arm, value, "D")
    own = all_tasks_table(tmp_path / "records")
    gains = gains_table(own).set_index("task")
    assert gains.loc["qm9_mu", "own JMP-L over GN-OC-L / %"] == pytest.approx(80.0)
    assert gains.loc["qm9_mu", "published JMP-L over GN-OC-L / %"] == pytest.approx(100 * (0.023 - 0.008) / 0.023)
    assert gains["own JMP-L over GN-OC-L / %"].notna().sum() == 1
    scaling = scaling_table(own).set_index(["comparison", "family"])
    assert scaling.loc[("GN-OC-L over GN-OC-S", "all"), "own_mean_gain_percent"] == pytest.approx(-25.0)
    assert scaling.loc[("GN-OC-L over GN-OC-S", "all"), "own_tasks"] == 1
    assert scaling.loc[("JMP-L over JMP-S", "all"), "published_mean_gain_percent"] == pytest.approx(21.07, abs=0.005)


def test_gains_that_a_notebook_draws_and_the_blank_published_side_of_smoke(tmp_path):
    for arm, value in zip(facts.ARMS, (4.0, 5.0, 2.0, 1.0)):
        write_record(tmp_path, "qm9_mu", arm, value, "D")
    for comparable in (True, False):
        profile = SimpleNamespace(data="mini", comparable=comparable)
        run = SimpleNamespace(records_dir=tmp_path / "records", tasks=("qm9_mu", "qm9_alpha"), profile=profile)
        table = views.gains(run, "JMP-L", "GN-OC-L")
        assert dict(table["this workbook (mini data)"]) == {"qm9_mu": 80.0} and table["from"].isna().all()
        assert np.isnan(table[views.PAPER]["qm9_mu"]) != comparable


# speed-up

def test_speedup_counts_until_the_scratch_best_is_reached(tmp_path):
    write_record(tmp_path, "rmd17_ethanol", "GN-OC-S", 0.1, "eV/A",
                 history=[(10, 4.0, 0.3), (40, 16.0, 0.2), (80, 32.0, 0.25)])
    write_record(tmp_path, "rmd17_ethanol", "JMP-S", 0.1, "eV/A",
                 history=[(10, 2.0, None), (20, 4.0, 0.19), (80, 16.0, 0.1)])
    write_record(tmp_path, "qm9_mu", "GN-OC-S", 1.0, "D", history=[(10, 6.0, 1.0)])
    write_record(tmp_path, "qm9_mu", "JMP-S", 1.0, "D", history=[(10, 2.0, 1.5), (30, 10.0, 1.2)])
    write_record(tmp_path, "qm9_mu", "JMP-L", 1.0, "D")  # no scratch partner of this size
    table = speedup_table(tmp_path / "records").set_index(["task", "size"])
    hit = table.loc[("rmd17_ethanol", "S")]
    assert (hit["target_val"], hit["scratch_seconds"], hit["jmp_seconds"]) == pytest.approx((200.0, 16.0, 4.0))
    assert (hit["ratio_seconds"], hit["ratio_steps"]) == (4.0, 2.0)
    missed = table.loc[("qm9_mu", "S")]
    assert np.isnan(missed["ratio_seconds"]) and missed["jmp_seconds_whole_run"] == 10.0
    assert len(table) == 2
    total = speedup_totals(table.reset_index()).set_index("size").loc["S"]
    assert (total["tasks"], total["tasks_reached"]) == (2, 1)
    assert total["ratio_seconds_reached"] == 4.0
    assert total["ratio_seconds_all"] == pytest.approx((16.0 + 6.0) / (4.0 + 10.0))


def test_fine_tunings_with_fewer_updates_are_counted(tmp_path):
    def run(folder, arm, task, unit, *errors, every=10):
        history = [(0, 0.0, 9.0), *((every * k, float(k), error) for k, error in enumerate(errors, 1))]
        write_record(folder, task, arm, errors[-1], unit, history=history)

    def half(*errors, **every):
        run(tmp_path / "variants" / "half", "JMP-S", *errors, **every)

    for task, unit, errors in (("qm9_mu", "D", (2.5, 2.0)), ("rmd17_ethanol", "meV/A", (3.0, 2.5)),
                               ("qm9_delta_eps", "meV", None)):
        run(tmp_path, "GN-OC-S", task, unit, 5.0, 4.0, 3.0, 2.0)
        run(tmp_path, "JMP-S", task, unit, 4.0, 3.0, 2.0, 1.0)
        if errors:  # the last task has no shorter run
            half(task, unit, *errors)
    found = shortened(tmp_path)
    assert found[["task", "budget", "share", "relative", "hit"]].values.tolist() == [
        ["qm9_mu", "all", 1.0, 0.5, 30.0], ["qm9_mu", "half", 0.5, 1.0, 20.0],
        ["rmd17_ethanol", "all", 1.0, 0.5, 30.0], ["rmd17_ethanol", "half", 0.5, 1.25, float("inf")]]
    every, forces = soonest(found).to_dict("records")
    assert ((every["size"], every["tasks"], every["all"], every["half"]) == ("S", 2, 2, 1)
            and every["ratio"] == 80 / (20 + 30))
    assert (forces["of"], forces["tasks"], forces["half"], forces["ratio"]) == ("forces", 1, 0, 40 / 30)
    half("qm9_mu", "D", 1.9, 1.8, every=5)  # more than twice as soon is seen
    assert soonest(shortened(tmp_path)).to_dict("records")[0]["ratio"] == 80 / (5 + 30)
    run(tmp_path / "variants" / "eighth", "JMP-S", "qm9_mu", "D", 3.0, 2.0, every=2)
    found = shortened(tmp_path)  # the task without this budget is left out
    assert (set(found["task"]) == {"qm9_mu"}
            and soonest(found)[["tasks", "all", "half", "eighth", "ratio"]].values[0].tolist() == [1, 1, 1, 1, 10])
    run(tmp_path, "JMP-S", "qm9_mu", "D", 4.0, 3.0)  # as good in none but the short ones
    assert soonest(shortened(tmp_path))["all"][0] == 0 and soonest(shortened(tmp_path))["ratio"][0] == 10
    assert shortened(tmp_path / "nothing").empty and soonest(shortened(tmp_path / "nothing")).empty



def test_write_tables_writes_blank_cells_and_dashes(tmp_path):
    write_record(tmp_path, "qm9_mu", "GN-OC-S", 1.0, "D", history=[(10, 6.0, 1.0)])
    write_record(tmp_path, "qm9_mu", "JMP-S", None, "D", history=[(10, 2.0, 1.5), (30, 10.0, float("nan"))])
    written = write_tables(tmp_path)
    names = {path.name for path in written}
    assert {"all_tasks.csv", "table2.csv", "table5.csv", "claims.csv", "scaling.csv", "speedup.csv"} <= names
    assert all(path.is_file() for path in written) and not list(tmp_path.rglob("*.tmp"))
    rows = (tmp_path / "tables" / "all_tasks.csv").read_text().splitlines()
    assert rows[0].startswith("task,family,arm,metric,value,unit,data,n_train,n_test,record")
    assert rows[1].startswith("qm9_mu,qm9,GN-OC-S,MAE,1,D,") and rows[2].startswith("qm9_mu,qm9,JMP-S,MAE,,D,")
    assert ",-,-," in (tmp_path / "tables" / "speedup.csv").read_text()
    before = {path: path.read_bytes() for path in written}
    assert {path: path.read_bytes() for path in write_tables(tmp_path)} == before


# bad records

@pytest.mark.parametrize("change, message", [
    ({"task": "qm9_g"}, "holds the record of"), ({"unit": "kcal/mol"}, "no factor is known"),
    ({"schema": -1}, "not a record"),
])
def test_bad_records_are_named(tmp_path, change, message):
    write_record(tmp_path, "qm9_mu", "JMP-S", 1.0, **{"unit": "D", **change} if "task" not in change else {"unit": "D"})
    if "task" in change:
        path = tmp_path / "records" / "finetune" / "qm9_mu" / "JMP-S.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match=message):
        all_tasks_table(tmp_path / "records")


def test_record_without_a_field_is_named(tmp_path):
    path = write_record(tmp_path, "qm9_mu", "JMP-S", 1.0, "D")
    record = json.loads(path.read_text())
    del record["n_test"]
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match="lacks n_test"):
        all_tasks_table(tmp_path / "records")


# the scoreboard

def test_a_claim_is_counted_beside_arms_and_baselines(tmp_path):
    for task, unit in (("qm9_mu", "D"), ("qm9_alpha", "a0^3")):
        for arm, value in zip(facts.ARMS, (4.0, 5.0, 2.0, 1.0)):
            write_record(tmp_path, task, arm, value, unit)
    path = tmp_path / "records" / "baselines" / "qm9_mu--composition.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"schema": SCHEMA, "kind": "baseline", "task": "qm9_mu",
                                "arm": "composition", "value": 0.5, "unit": "D"}))
    row = claims_table(tmp_path / "records").set_index("id").loc["sota_34_of_40"]
    assert row["own_value"] == 1 and row["own"] == (
        "1 best + 0 tied of 2, beside our arms and baselines (2 best + 0 tied of 2, among our four arms)")
    board = scoreboard(tmp_path / "records").set_index("notebook")
    assert board.loc["13_paper_tables", "own"] == "1 of 2 [0, 2]" and board.loc["13_paper_tables", "agrees"] == "yes"
    assert set(board.index) <= {path.stem for path in NOTEBOOKS.glob("*.ipynb")}


@pytest.mark.parametrize("unit, printed, own, agrees", [
    ("%", 59, (28, 22, 35), "in sign, smaller"), ("%", 59, (58, 50, 66), "yes"),
    ("%", 59, (90, 80, 99), "in sign, larger"), ("%", -8, (1, -5, 6), "undecided"), ("%", -8, (5, 2, 9), "no"),
    ("%", 59, (28, np.nan, np.nan), "in sign, smaller (no interval)"), ("x", 12, (1.4, 1.2, 1.7), "in sign, smaller"),
    ("x", 12, (1.1, 0.9, 1.3), "undecided"), ("tasks", 34, (15, 12, 17), "yes"), ("tasks", 34, (10, 8, 12), "fewer")])
def test_the_verdict_follows_from_the_interval(unit, printed, own, agrees):
    row = pd.Series(dict(zip(("own_value", "own_from", "own_to"), own)) | {"own_tasks": 20})
    assert verdict(pd.Series({"unit": unit, "rule": "r"}), printed, row) == agrees
    if own[1] > 0:  # a recipe against another base: by its sign alone
        assert verdict(pd.Series({"unit": "%", "rule": "ablation"}), 7.7, row) == "in sign"
