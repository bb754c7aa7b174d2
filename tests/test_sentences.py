"""Sentences under figures: their verdict words follow from small tables."""

from types import SimpleNamespace

import pandas as pd
import pytest

from jmp_lib.results import sentences, views

RUN = SimpleNamespace(profile=SimpleNamespace(comparable=True, name="mini"), pretraining_records=list,
                      results_dir="", records_dir="")
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
    table = pd.DataFrame([("small", "ani1x", 1.0, 2.0, 1.0, 2.0),
                          ("small", "oc22", float("nan"), float("nan"), 3.0, 2.0),
                          ("large", "ani1x", 1.0, 2.0, 1.0, 2.0),
                          ("large", "oc22", float("nan"), float("nan"), 3.0, 2.0)], columns=columns)
    monkeypatch.setattr(views, "pretraining_table", lambda run: table)
    words = sentences.pretraining(RUN).data
    assert ("The energies are predicted better than trivially by either network on every set where "
            "they are trained. " in words)
    assert ("on every set where they are trained, except by the small network on oc22 and by the "
            "large network on oc22. " in words)
    assert "On oc22 only forces are trained" in words


@pytest.mark.parametrize(("once_on", "ratio"), [(["card", "cpu"], False), (["cpu"], True)])
def test_minutes_of_different_machines_are_not_compared(monkeypatch, once_on, ratio):
    table = pd.DataFrame({"step": ["pre-training", "scratch", "tuned"], "this workbook / minutes": [40.0, 20.0, 10.0]})
    monkeypatch.setattr(sentences, "cost_table", lambda _: table)
    for name, where in (("load_pretraining_records", once_on), ("finetune_records", ["cpu"])):
        monkeypatch.setattr(sentences, name, lambda _, where=where: [{"machines": [{"device": one} for one in where]}])
    said = sentences.costs(RUN).data
    assert ("costs 2.0 times what training all" in said and "paid back after 4.0 rounds" in said) == ratio
    assert ("fine-tuning costs 0.50 times" in said and "on card and cpu, are no share" in said) != ratio


@pytest.mark.parametrize(("given", "words"), [((64.0, 65.0), "changes hardly anything"),
                                              ((64.0, 50.0), "like nearer to like"),
                                              ((50.0, 64.0), "the domains together")])
def test_what_training_changes_in_the_embeddings(given, words):
    rows = {"neighbours of the same domain": (59.0, 58.0, 25.0),
            "neighbours of the same domain, element given": (*given, 33.0),
            "variance explained by the element": (39.0, 66.0, 7.0)}
    columns = ["pre-trained", "untrained", "by chance"]
    shares = pd.DataFrame(rows, index=columns).T.rename_axis("share / %").reset_index()
    said = sentences.neighbours(RUN, shares).data
    assert words in said and "explains 39 % of the variance, before it was 66 %" in said and "no proof" in said
