"""Sentences under figures: their verdict words follow from small tables."""

from types import SimpleNamespace

import pandas as pd
import pytest

from jmp_lib.results import sentences, views

RUN = SimpleNamespace(profile=SimpleNamespace(comparable=True, name="mini"), pretraining_records=list)
APART, BELOW, ACROSS = (50.0, 40.0, 60.0), (10.0, 5.0, 15.0), (30.0, 5.0, 70.0)  # a gain and its interval


@pytest.mark.parametrize("tasks, verdict", [
    ([(APART, BELOW)], "is seen here"), ([(BELOW, APART)], "is not seen here"),
    ([(ACROSS, BELOW)], "is undecided here"),
    ([(APART, BELOW), (BELOW, APART)], "is undecided here"), ([(APART, BELOW), (ACROSS, APART)], "is seen here")])
def test_few_labels_matter_more_where_the_intervals_lie_apart(tasks, verdict):
    """Each task: its gain with 100 labels, and with 800."""
    rows = [(f"qm9_{name}", n_train, *gain) for name, gains in zip(("mu", "alpha"), tasks)
            for n_train, gain in zip((100, 800), gains)]
    name = "JMP-L over GN-OC-L"
    table = pd.DataFrame(rows[::-1], columns=["task", "n_train", f"{name} / %", f"{name} from", f"{name} to"])
    words = sentences.few_labels(RUN, table).data
    assert verdict in words and f"of {len(tasks)} task" in words


@pytest.mark.parametrize("changes, force, undecided, hardly", [
    ([5.0, 6.0, 7.0], 0.5, False, False), ([5.0, -6.0, 1.0], 0.95, True, True),
    ([-5.0, -6.0, -7.0], 0.8, False, False)])
def test_bulk_crystals_change_what_the_interval_says(changes, force, undecided, hardly):
    table = pd.DataFrame([{"task": task, "variant": variant, "gain": 20.0 + change * (variant == "with-bulk")}
                          for task, change in zip("abc", changes) for variant in ("base", "with-bulk", "other")])
    record = {"data": ["oc20", "bulk"], "final": {"bulk_force_mae": force}, "baseline": {"bulk": {"force_mae": 1.0}}}
    words = sentences.bulk(RUN, table, [record]).data
    assert f"upwards on {sum(change > 0 for change in changes)}" in words
    assert ("undecided here" in words) == undecided and ("hardly learnt" in words) == hardly


def test_the_sets_that_a_pre_training_did_not_learn_are_exceptions(monkeypatch):
    columns = ["size", "set", "energy MAE / eV", "trivial energy MAE / eV",
               "force MAE / eV/Å", "trivial force MAE / eV/Å"]
    table = pd.DataFrame([("small", "ani1x", 1.0, 2.0, 1.0, 2.0), ("small", "oc22", float("nan"), float("nan"), 3.0,
                                                                   2.0), ("large", "ani1x", 1.0, 2.0, 1.0, 2.0),
                          ("large", "oc22", float("nan"), float("nan"), 3.0, 2.0)], columns=columns)
    monkeypatch.setattr(views, "pretraining_table", lambda run: table)
    words = sentences.pretraining(RUN).data
    assert ("The energies are predicted better than trivially by either network on every set where "
            "they are trained. " in words)
    assert ("on every set where they are trained, except by the small network on oc22 and by the "
            "large network on oc22. " in words)
    assert "On oc22 only forces are trained" in words
