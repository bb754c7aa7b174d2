"""The study of learning rates: a record per cell, each with its rate, and the choice that follows from them."""

import pandas as pd
import pytest

from jmp_lib.records import read_record
from jmp_lib.settings import load_profile
from tools import study_rates


def test_a_cell_trains_at_its_rate_and_sees_no_test_structure(tmp_path):
    profile = load_profile("smoke")
    found = [study_rates.cell(profile, "qm9_mu", "GN-OC-S", lr, tmp_path) for lr in (1.0e-4, 3.0e-4)]
    assert [r["lr"] for r in found] == [1.0e-4, 3.0e-4] == [r["parameters"]["settings"]["lr"] for r in found]
    assert found[1]["history"][-1]["lr"] == pytest.approx(3 * found[0]["history"][-1]["lr"])
    assert found[0]["best_val"] != found[1]["best_val"] and "n_test" not in found[0] and "value" not in found[0]
    again = study_rates.cell(profile, "qm9_mu", "GN-OC-S", 1.0e-4, tmp_path)
    assert again == found[0] == read_record(tmp_path / "records" / "rates" / "qm9_mu" / "GN-OC-S--0.0001.json")
    rows = study_rates.table(tmp_path)
    assert list(rows["lr"]) == [1.0e-4, 3.0e-4] and set(rows["pretrained"]) == {""}


def test_the_choice_is_the_least_mean_relative_error():
    rows = pd.DataFrame([("qm9_u0", "JMP-S", lr, error) for lr, error in ((1.0, 2.0), (2.0, 1.0), (3.0, 4.0))] +
                        [("qm9_mu", "JMP-S", lr, error) for lr, error in ((1.0, 30.0), (2.0, 40.0), (3.0, 10.0))] +
                        [("rmd17_uracil", "GN-OC-S", 1.0, 5.0)], columns=["task", "arm", "lr", "best_val"])
    found = study_rates.choice(rows).set_index(["group", "arm", "lr"])
    assert found.loc[("property", "JMP-S", 2.0), "relative"] == pytest.approx(2.0)  # of 1 and 4
    assert found.loc[("property", "JMP-S", 1.0), "relative"] == pytest.approx(6.0 ** 0.5)
    assert found.loc[("rmd17", "GN-OC-S", 1.0)].tolist() == [1.0, 1]


def test_the_own_example_is_a_cell_too(tmp_path):
    for lr in (1.0e-3, 1.0e-4):
        record = study_rates.own_cell("smoke", 2, lr, "pre-trained", tmp_path)
        assert record["lr"] == lr and record["updates"] == 2
    rows = study_rates.own_table(tmp_path)
    assert (rows["lr"].tolist() == [1.0e-4, 1.0e-3] and rows["best_val"].notna().all()
            and rows["test forces"].gt(0).all())
