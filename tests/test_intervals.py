"""Intervals: known cases, pairing, blocks of a trajectory; means over tasks with and without what was not learnt."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from jmp_lib import facts
from jmp_lib.data.tasks import get_task
from jmp_lib.records import SCHEMA, packed_errors, unpacked_errors
from jmp_lib.results import intervals, sentences
from jmp_lib.results.summary import summary
from jmp_lib.results.tables import gains_table, paper_table, scaling_table
from jmp_lib.results.values import all_tasks_table, gains, not_learnt
from jmp_lib.settings import load_profile
from jmp_lib.train.losses import mae, structure_errors
from test_tables import write_record

RNG = np.random.default_rng(0)


def weighted(errors) -> np.ndarray:
    return np.column_stack([errors, np.ones(len(errors))])


def composition(results, task, value):
    """A synthetic record of the linear model of the composition."""
    path = results / "records" / "baselines" / f"{task}--composition.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"schema": SCHEMA, "kind": "baseline", "task": task, "arm": "composition",
                                "value": value, "unit": "D"}))


def test_the_bootstrap_of_a_mean_is_that_of_theory_and_covers_the_truth():
    """The interval of a mean error is mean ± 1.96 s / sqrt(n), and holds the true mean in about 95 of 100 samples."""
    errors = RNG.exponential(2.0, 400)
    low, high = intervals.middle(intervals.bootstrap(weighted(errors), np.arange(400)))
    half = 1.96 * errors.std() / 20
    assert (low, high) == pytest.approx((errors.mean() - half, errors.mean() + half), abs=0.15 * half)
    samples = [intervals.middle(intervals.bootstrap(weighted(RNG.exponential(2.0, 100)), np.arange(100)))
               for _ in range(200)]
    assert 0.88 <= np.mean([low < 2.0 < high for low, high in samples]) <= 0.98


def test_a_gain_is_paired_and_blocks_widen_it():
    errors = RNG.exponential(1.0, 90)
    low, high = intervals.middle(intervals.gain_draws(weighted(0.7 * errors), [weighted(errors)]))
    assert (low, high) == pytest.approx((30.0, 30.0)), ("half the error on every structure is "
                                                        "certain, however few there are")
    level = np.repeat(RNG.normal(0, 0.4, 18), 5)  # frames that follow each other are alike
    new = weighted(errors * np.exp(level))
    single, blocked = (intervals.middle(intervals.gain_draws(new, [weighted(errors)], family))
                       for family in ("qm9", "rmd17"))
    assert np.ptp(blocked) > 1.2 * np.ptp(single)
    assert list(np.bincount(intervals.blocks(90))) == [5] * 18 and len(set(intervals.blocks(24))) == 8
    better = intervals.gain_draws(new, [weighted(errors), weighted(9 * errors)])
    assert np.array_equal(better, intervals.gain_draws(new, [weighted(errors)])), "over the better of two references"
    assert intervals.gain_draws(new, [weighted(errors[:5])]) is None and intervals.gain_draws(None, [new]) is None


def test_means_counts_and_ratios_are_known_cases():
    values = pd.Series([10.0, 20.0, 30.0, np.nan])
    expected = stats.t.interval(0.95, 2, 20.0, stats.sem([10, 20, 30]))
    assert intervals.of_mean(values) == pytest.approx(expected)
    assert np.isnan(intervals.of_mean(values[:2])).all()
    assert intervals.of_count(34, 40) == pytest.approx((40 * 0.709, 40 * 0.929), abs=0.05)  # Wilson, 34 of 40
    assert intervals.of_ratio(pd.Series([2.0] * 5), pd.Series([1.0] * 5)) == (2.0, 2.0)
    low, high = intervals.of_ratio(pd.Series([2.0, 4.0, 6.0]), pd.Series([1.0, 1.0, 1.0]))
    assert 2.0 <= low < 4.0 < high <= 6.0
    assert (intervals.words(20.61, 13.0, -0.04) == "+20.6 [+13.0, 0.0]"
            and intervals.words(-0.01, np.nan, np.nan, "%") == "0.0 %")
    assert intervals.words(1.4, 1.19, 1.67, "x") == "1.40x [1.19, 1.67]" and intervals.words(np.nan, 1, 2) == ""
    assert intervals.words(34, 28.4, 37.2, "tasks", " of 40") == "34 of 40 [28, 37]"


def test_a_record_keeps_the_errors_in_the_order_of_their_rows():
    true, natoms = RNG.normal(size=(9, 3)), np.array([2, 3, 4])
    predicted = true + RNG.normal(size=(9, 3))
    errors = structure_errors(predicted, true, natoms)
    record = {"test_errors": json.loads(json.dumps(packed_errors(errors, np.array([7, 2, 5]))))}
    again = unpacked_errors(record)
    assert list(again[:, 1]) == [3, 4, 2] and again[2, 0] == pytest.approx(errors[0, 0], rel=1e-3)
    assert np.average(again[:, 0], weights=again[:, 1]) == pytest.approx(mae(predicted, true), rel=1e-3)
    assert packed_errors(structure_errors(true[:, 0], predicted[:, 0], natoms), np.arange(9))["weight"] is None
    assert unpacked_errors({}) is None


@pytest.fixture
def results(tmp_path):
    """Three tasks of QM9, of which mu was not learnt, and one molecule with errors of its test frames."""
    for number, task in enumerate(("qm9_mu", "qm9_alpha", "qm9_r2")):
        for arm, value in zip(facts.ARMS, (4.0, 5.0, 2.0 + number, 1.0)):
            write_record(tmp_path, task, arm, value, get_task(task).printed_unit)
        composition(tmp_path, task, 0.5 if task == "qm9_mu" else 3.0)
    for arm, value in zip(facts.ARMS, (4.0, 5.0, 2.0, 1.0)):
        noise = np.random.default_rng(int(value)).normal(0, 0.1, 27)
        errors = {"mae": list(value * (1 + noise - noise.mean())), "weight": None}
        write_record(tmp_path, "rmd17_ethanol", arm, value, "meV/A", baseline=9.0, test_errors=errors)
    return tmp_path


def test_what_was_not_learnt_is_marked_and_both_means_are_given(results):
    table = all_tasks_table(results / "records")
    assert not_learnt(table) == ["qm9_mu"] and set(table["learnt"]) == {"yes", "no"}
    scaling = scaling_table(table).set_index(["comparison", "family"]).loc["JMP-S over GN-OC-S"]
    assert scaling.loc["qm9", "own_mean_gain_percent"] == pytest.approx((50 + 25 + 0) / 3)
    assert scaling.loc["all", "own_mean_gain_percent"] == pytest.approx((50 + 25 + 0 + 50) / 4)
    assert (scaling.loc["learnt", "own_mean_gain_percent"] == pytest.approx((25 + 0 + 50) / 3)
            and scaling.loc["learnt", "own_tasks"] == 3)
    assert "not learnt" in paper_table(2, table).set_index("task").loc["qm9_mu", "note"]
    assert paper_table(2, table).set_index("task").loc["qm9_r2", "note"] == ""
    assert dict(gains_table(table).set_index("task")["learnt"].dropna()) == {
        "qm9_mu": "no", "qm9_alpha": "yes", "qm9_r2": "yes", "rmd17_ethanol": "yes"}
    words = summary(results)
    assert ("| the 3 learnt | +25.0 [" in words and "composition (forces: than none): qm9_mu." in words
            and "nan" not in words)


def test_every_gain_that_is_printed_has_its_interval(results):
    table = all_tasks_table(results / "records")
    gained = gains_table(table).set_index("task")
    low, high = gained.loc["rmd17_ethanol", ["own JMP-S over GN-OC-S from", "own JMP-S over GN-OC-S to"]]
    assert 45 < low < 50 < high < 55 and np.isnan(gained.loc["qm9_mu", "own JMP-S over GN-OC-S from"])
    scaling = scaling_table(table).set_index(["comparison", "family"]).loc["JMP-S over GN-OC-S"]
    assert (tuple(scaling.loc["rmd17", ["own_mean_gain_from", "own_mean_gain_to"]])
            == (low, high)), "one task: its test frames"
    assert tuple(scaling.loc["qm9", ["own_mean_gain_from", "own_mean_gain_to"]]) == pytest.approx(
        intervals.of_mean([50, 25, 0]))
    assert scaling.loc["all", "own_tasks_surely"] == 1 and np.isnan(scaling.loc["qm9", "own_tasks_surely"])
    assert f"| rmd17 | +50.0 [{low:+.1f}, {high:+.1f}] |" in summary(results)


def test_sentences_give_the_mean_its_interval_and_whether_the_paper_is_seen_again(results):
    class run:
        records_dir, tasks, pairs, arms = results / "records", ("rmd17_ethanol",), [("JMP-S", "GN-OC-S")], facts.ARMS

        class profile:
            name, data, comparable = "mini", "mini", True
            finetune_settings = load_profile("mini").finetune_settings

    low, high = gains(all_tasks_table(results / "records"), "JMP-S", "GN-OC-S").loc["rmd17_ethanol", ["from", "to"]]
    words = sentences.gains(run).data
    assert words.startswith(f"JMP-S over GN-OC-S: +50.0 [{low:+.1f}, {high:+.1f}] % on ethanol; the paper +78.5 %")
    assert words.endswith("; the sign is the paper's, the effect is smaller.")
    run.tasks = ("qm9_mu", "qm9_alpha", "qm9_r2", "rmd17_ethanol")
    assert ("+31.2 [" in sentences.gains(run).data
            and "on average, better on 3 of 4 tasks (1 of them with" in sentences.gains(run).data)
    assert "Not learnt: on mu no arm" in sentences.parity(run).data
    run.profile.comparable = False
    assert "mean nothing" in sentences.gains(run).data and "%" not in sentences.learning(run).data


@pytest.mark.parametrize("low, high, paper, words",
                         [(1, 2, 50, "the sign is the paper's, the effect is smaller"),
                          (1, 60, 50, "the interval holds the paper's value"),
                          (60, 70, 50, "larger"), (-2, -1, 50, "disagrees"), (-1, 2, 50, "undecided"),
                          (-3, -1, -8, "the effect is smaller"), (float("nan"), 1, 50, ""), (1, 2, float("nan"), "")])
def test_verdicts(low, high, paper, words):
    assert words in sentences.verdict(low, high, paper) and bool(words) == bool(sentences.verdict(low, high, paper))
