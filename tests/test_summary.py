"""The short summaries of results and of measurements: what was not run is left out, what is reduced is said."""

import json

import pandas as pd
import pytest

from jmp_lib import facts
from jmp_lib.records import SCHEMA
from jmp_lib.results.claims import claims_table
from jmp_lib.results.summary import baseline_summary, longer_summary, soonest_lines, summary
from jmp_lib.results.speedup import longer
from jmp_lib.results.tables import write_tables
from jmp_lib.results.values import published_values
from test_tables import write_record
from tools.readme import computing_summary, speed


def test_families_that_were_not_run_are_left_out(tmp_path):
    for arm, value in zip(facts.ARMS, (4.0, 5.0, 2.0, 1.0)):
        write_record(tmp_path, "qm9_mu", arm, value, "D")
    write_tables(tmp_path)
    words = summary(tmp_path)
    assert "| qm9 | +50.0 | +80.0 | -25.0 | +50.0 |" in words and "rmd17" not in words and "nan" not in words
    assert "| tasks improved | 1 of 1 | 1 of 1 | 0 of 1 | 1 of 1 |" in words
    row = published_values().loc["qm9_mu"]
    gain = 100 * (1 - row["JMP-S"] / row["GN-OC-S"])
    assert f"| *paper, the same 1 tasks* | {gain:+.1f} |" in words


def test_one_arm_or_smoke_alone_give_a_sentence(tmp_path):
    for folder, arms, profile in ((tmp_path / "a", facts.ARMS[:1], "mini"), (tmp_path / "b", facts.ARMS, "smoke")):
        for arm in arms:
            write_record(folder, "qm9_mu", arm, 1.0, "D", profile=profile)
        write_tables(folder)
        assert summary(folder) == "No two arms have values that may stand side by side."


@pytest.mark.parametrize("n_train, words",
                         [(1000, "published data, reduced, profile p"), (110831, "published data, profile p")])
def test_claims_say_that_published_data_are_reduced(tmp_path, n_train, words):
    for arm in facts.ARMS:
        write_record(tmp_path, "qm9_mu", arm, 1.0, "D", profile="p", data_kind="published", n_train=n_train)
    table = claims_table(tmp_path / "records").set_index("id")
    assert table.loc["avg_gain_over_scratch", "own_data"] == words


def test_the_table_of_steps_is_that_of_the_record(tmp_path):
    row = {"best_seconds": 4.0, "gflop": 600.0, "gflop_per_second": 150.0, "times_ideal": 1.25, "peak_gb": 3.0,
           "product_rates": {"edges": 187.5}}
    record = {"threads": 2, "cpu": "X", "versions": {"torch": "2"},
              "cases": {"molecules": row, "slabs-gradient-4": row},
              "cases_with_allocator": {"molecules": {**row, "peak_gb": 2.0}}, "allocator": "/lib/libfast_minimal.so.4"}
    (tmp_path / "step.json").write_text(json.dumps(record))
    lines = speed(tmp_path).splitlines()
    assert lines[2] == "| 8 aspirin, direct forces | 4.00 | 600 | 150 | 1.25 | 3.00 |"
    assert lines[3].endswith("| 3.00 |") and lines[4].startswith("| 8 aspirin, direct forces, fast_minimal |")
    with pytest.raises(FileNotFoundError):
        speed(tmp_path / "nothing")


def test_baselines_are_counted_against_the_arms(tmp_path):
    for task, values in (("rmd17_ethanol", (4.0, 3.0, 2.0, 1.0)), ("rmd17_aspirin", (4.0, 1.0, 1.0, 1.0)),
                         ("qm9_mu", (4.0, 3.0, 2.0, 1.0))):
        for arm, value in zip(facts.ARMS, values):
            write_record(tmp_path, task, arm, value, "D" if task == "qm9_mu" else "meV/A")
    assert baseline_summary(tmp_path) == ""
    for task, name, value in (("rmd17_ethanol", "mace", 1.5), ("rmd17_aspirin", "mace", 3.5),
                              ("qm9_mu", "composition", 0.5), ("qm9_mu", "schnet", 2.5)):
        path = tmp_path / "records" / "baselines" / f"{task}--{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"schema": SCHEMA, "kind": "baseline", "task": task, "arm": name,
                                    "value": value, "unit": "D"}))
    mace, schnet, linear = " ".join(baseline_summary(tmp_path).split())[2:].split(" - ")
    assert mace.endswith("of 2 tasks better than GN-OC-S on 2, than GN-OC-L on 1, than JMP-S on 1, than JMP-L on 0.")
    assert (schnet.startswith("SchNet from scratch")
            and schnet.endswith("GN-OC-S on 1, than GN-OC-L on 1, than JMP-S on 0, than JMP-L on 0."))
    assert linear.endswith("better than all four arms on 1 of 1 tasks (qm9_mu).")


def test_computing_is_added_up_over_variants(tmp_path):
    write_record(tmp_path, "qm9_mu", "JMP-S", 1.0, "D", wall_time_s=90.0)
    write_record(tmp_path / "variants" / "seed-43", "qm9_mu", "JMP-S", 1.0, "D", wall_time_s=30.0)
    assert computing_summary(tmp_path) == "All 2 fine-tunings and baselines took 2 minutes of computing, added up."
    path = tmp_path / "records" / "pretrain" / "small.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"schema": SCHEMA, "kind": "pretrain", "size": "small",
                                "wall_time_s": 180.0, "shipped": "mini-small",
                                "machines": [{"device": "card"}, {"device": "cpu"}, {"device": "card"}]}))
    assert " ".join(computing_summary(tmp_path).split()).endswith(
        "2 minutes of computing, added up; the pre-training that ships took 3, on card and cpu.")


def test_what_eight_times_the_updates_change(tmp_path):
    for folder, values, steps in ((tmp_path, (4.0, 2.0), (10, 20)),
                                  (tmp_path / "variants" / "long", (2.0, 1.5), (80, 160))):
        for arm, value in zip(("GN-OC-S", "JMP-S"), values):
            history = [(steps[0], 1.0, value), (steps[1], 2.0, value + 0.1 * (arm == "GN-OC-S"))]
            write_record(folder, "rmd17_ethanol", arm, value, "eV/A", history=history)
    table = longer(tmp_path)
    assert table.iloc[0, 2:].tolist() == [160, 80, 80, 1.0, 25.0, 50.0]
    assert longer_summary(table) == (
        "With eight times the updates training from scratch is at its best before the last of them in 1 of 1 cases. "
        "JMP-S is 25 % better on average over 1 tasks, where it was 50 % with the usual updates, "
        "and as good as training from scratch in the median 1.0 times sooner.")
    assert longer_summary(longer(tmp_path / "nothing")) == ""


def test_short_fine_tunings_are_counted_in_words():
    table = pd.DataFrame([("L", "forces", 12, 12, 8, 2, 1.5, 1.25, 1.75)],
                         columns=["size", "of", "tasks", "all", "half", "eighth", "ratio", "from", "to"])
    assert soonest_lines(table) == ["L, forces: fine-tuning is as good (in validation error) "
                                    "as training from scratch with all updates on 12 of 12 with as many, "
                                    "8 of 12 with a half of them, 2 of 12 with an eighth of them; in the soonest of "
                                    "these runs it is as good 1.50x [1.25, 1.75] sooner (in none: all updates count)."]
