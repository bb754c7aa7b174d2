"""A run beside the shipped one: equal to itself, and a changed copy shows where it differs and
whether that is noise."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from jmp_lib.facts import ARMS
from jmp_lib.results.comparison import compare, comparison_text, write_comparison
from test_tables import write_record

SHIPPED = Path(__file__).resolve().parents[1] / "results" / "shipped"


@pytest.fixture(params=("mini", "published_small"))
def shipped(request):
    folder = SHIPPED / request.param
    if not (folder / "records" / "finetune").is_dir():
        pytest.skip(f"{folder} is not here")
    return folder


def changed_copy(shipped: Path, folder: Path, factors: dict[tuple[str, str], float]) -> Path:
    """The fine-tuning records of ``shipped`` with the values of (start of task, arm) multiplied."""
    shutil.copytree(shipped / "records", folder / "records")
    for path in folder.glob("records/finetune/*/*.json"):
        record = json.loads(path.read_text())
        for (task, arm), factor in factors.items():
            if record["task"].startswith(task) and record["arm"] == arm:
                record["value"] *= factor
        path.write_text(json.dumps(record))
    return folder


def test_the_shipped_run_equals_itself(shipped):
    found = compare(shipped, shipped)
    rows = found.rows
    assert (rows["difference"] == 0).all() and rows["same_sign"].all() and rows["within_noise"].all()
    assert (found.errors["change_percent"] == 0).all() and not found.missing and not found.other
    families = rows[(rows["kind"] == "family") & (rows["name"] == "JMP-L over GN-OC-L")].set_index("family")
    scaling = pd.read_csv(shipped / "tables" / "scaling.csv").query("comparison == 'JMP-L over GN-OC-L'").set_index(
        "family")
    assert np.allclose(families["shipped"], scaling.loc[families.index, "own_mean_gain_percent"], rtol=1e-6)
    claims = pd.read_csv(shipped / "tables" / "claims.csv").set_index("id")["own_value"].dropna()
    claims = claims[~claims.index.str.startswith("ablation")]
    assert dict(rows[rows["kind"] == "claim"].set_index("name")["shipped"]) == pytest.approx(dict(claims), rel=1e-6)
    assert "beyond:" not in comparison_text(found)


def test_noise_is_of_seeds_where_they_are_shipped_and_falls_with_the_number_of_tasks(shipped):
    rows = compare(shipped, shipped).rows
    gains = rows[rows["kind"] == "family"]
    assert set(gains["noise_from"]) == ({"seeds"} if any(shipped.glob("variants/seed-*")) else {"tasks"})
    one = gains[gains["name"] == "JMP-S over GN-OC-S"].set_index("family")
    assert one.loc["all", "noise"] == pytest.approx(one.loc["qmof", "noise"] / np.sqrt(one.loc["all", "tasks"]))
    assert gains["noise"].between(0.5, 150).all()
    assert (rows.loc[rows["noise_from"] == "exact", "noise"] == 0).all() and (rows["noise_from"] == "exact").sum() == 3


def test_a_run_that_differs_shows_where(shipped, tmp_path):
    run = changed_copy(shipped, tmp_path, {("qm9_", "JMP-L"): 2.9, ("rmd17_", "GN-OC-S"): 1.001})
    found = compare(run, shipped)
    rows = found.rows.set_index(["name", "family"])
    assert (not rows.loc[("JMP-L over GN-OC-L", "qm9"), "same_sign"]
            and not rows.loc[("JMP-L over GN-OC-L", "qm9"), "within_noise"])
    assert rows.loc[("avg_gain_over_scratch_qm9", "qm9"), "difference"] < -30
    assert rows.loc[("JMP-S over GN-OC-S", "qm9"), "difference"] == 0
    assert (0 < rows.loc[("JMP-S over GN-OC-S", "rmd17"), "difference"] < 0.2
            and rows.loc[("JMP-S over GN-OC-S", "rmd17"), "within_noise"])
    words = write_comparison(run, shipped)
    assert "beyond: JMP-L over GN-OC-L, qm9" in words and "+190 % (qm9_" in words and len(words.splitlines()) < 25
    certificate, page = json.loads((run / "comparison.json").read_text()), (run / "comparison.html").read_text()
    assert certificate["compared"] == len(found.rows) and "JMP-L over GN-OC-L" in certificate["beyond_noise"]
    assert (len(certificate["test_errors"]) == len(found.errors)
            and set(certificate["made_with"]) == {"this run", "shipped run"})
    assert "<pre>This run beside the shipped one:" in page and "+190" in page and "http" not in page
    assert "JMP-L lowers the error against the same network trained from scratch" in page, "claims by their words"
    written = pd.read_csv(run / "tables" / "comparison.csv")
    assert (len(written) == len(found.rows)
            and (~written["within_noise"]).sum() == found.rows["within_noise"].eq(False).sum())


def test_only_what_both_have_is_compared_and_the_rest_is_said(tmp_path):
    for folder, arms, n_train in (("shipped", ARMS, 80), ("run", ARMS[:3], 70)):
        for task in ("qm9_mu", "qm9_g"):
            for arm, value in zip(arms, (4.0, 5.0, 2.0, 1.0)):
                write_record(tmp_path / folder, task, arm, value, "D" if task == "qm9_mu" else "meV", n_train=n_train)
    found = compare(tmp_path / "run", tmp_path / "shipped")
    assert set(found.rows.loc[found.rows["kind"] == "family", "name"]) == {"JMP-S over GN-OC-S", "GN-OC-L over GN-OC-S"}
    assert found.missing == [("qm9_g", "JMP-L"), ("qm9_mu", "JMP-L")]
    words = comparison_text(found)
    assert "not run here: qm9_g JMP-L, qm9_mu JMP-L" in words and "n_train is 70, shipped 80" in words


def test_nothing_to_compare_is_told(tmp_path):
    write_record(tmp_path / "a", "qm9_mu", "JMP-S", 1.0, "D", profile="smoke")
    write_record(tmp_path / "b", "qm9_mu", "JMP-S", 1.0, "D")
    for run, shipped in (("a", "b"), ("b", "a"), ("b", "nothing")):
        with pytest.raises(FileNotFoundError, match="no fine-tuning records to compare"):
            compare(tmp_path / run, tmp_path / shipped)
