"""What notebook 01 shows: every set and task counted, or the reason in words; neighbours counted right."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from jmp_lib.data import statistics as survey
from jmp_lib.data.tasks import PRETRAINING_SETS, TASKS
from jmp_lib.results import views
from jmp_lib.settings import load_profile


def test_mini_data_serve_every_task(monkeypatch):
    loaded, load = [], survey.mini.load_mini
    monkeypatch.setattr(survey.mini, "load_mini", lambda name: loaded.append(name) or load(name))
    found = survey.survey("mini", limit=3)
    assert loaded.count("qm9-mini") == 1  # which 12 tasks share
    assert found.counts["set or task"].tolist() == [*PRETRAINING_SETS, *TASKS] and found.missing == {}
    assert len(found.sets) == 10 and {len(structures) for structures in found.sets.values()} == {3}
    assert set(found.targets) == {task.id for task in TASKS.values() if not task.is_force_task} == set(found.units)
    assert survey.words(found) == "40 of the 40 tasks and 4 of the 4 pre-training sets can run with the data at hand."
    row = found.counts.set_index("set or task").loc["spice_solvated_amino_acids"]
    assert (row["official train / val / test"] == "1040 / 130 / 130"
            and row["here train / val / test"] == "240 / 30 / 30")


def test_without_files_every_task_says_what_is_missing(tmp_path):
    found = survey.survey("published", tmp_path, limit=3)
    assert list(found.missing) == [*PRETRAINING_SETS, *TASKS] and found.sets == {}
    text = survey.words(found)
    assert text.startswith("0 of the 40 tasks and 0 of the 4 pre-training sets") and len(text.splitlines()) == 45
    assert "oc22 cannot run: there are no published data of oc22" in text


def test_a_damaged_file_takes_no_other_task_along(tmp_path):
    (tmp_path / "qmof").mkdir()
    (tmp_path / "qmof" / "qmof_bandgap_pbe.npz").write_text("<html>")
    assert "web page" in survey.survey("published", tmp_path, limit=3).missing["qmof_bandgap"]


@pytest.mark.parametrize(("edge", "wanted"), [(6.0, 6), (5.0, 18)])
def test_neighbours_of_a_cubic_lattice_count_images(edge, wanted):
    """One atom in a cell: 6 images at the edge, 12 more at edge * sqrt(2)."""
    atom = {"pos": np.zeros((1, 3)), "cell": edge * np.eye(3), "pbc": np.ones(3, bool)}
    assert survey._neighbours(atom, 7.5).tolist() == [wanted]
    pair = {"pos": np.array([[0.0, 0, 0], [7.4, 0, 0], [20, 0, 0]]), "cell": np.zeros((3, 3)), "pbc": np.zeros(3, bool)}
    assert survey._neighbours(pair, 7.5).tolist() == [1, 1, 0]
    table = survey.neighbour_counts({"rmd17": [pair] * 30}, load_profile("paper").graphs, structures=4)
    assert table.loc[0, ["cutoff / Å", "limit", "structures", "atoms"]].tolist() == [7.0, 100, 4, 12]


def test_limits_of_the_profile_stand_beside_what_is_there():
    counts = pd.DataFrame({"set or task": ["oc20", "qm9_mu", "qm9_zpve"],
                           "here train / val / test": ["1350 / 150 / -", "600 / 100 / 100", ""], "why not": ""})
    profile = load_profile("mini")
    left = views.with_limits(SimpleNamespace(profile=profile), counts)["in a run train / val / test"].tolist()
    caps = profile.finetune_settings("qm9", "qm9_mu")
    assert left == [f"1350 / {profile.pretraining.datasets['oc20'].max_val} / -",
                    f"600 / {caps.max_val} / {min(100, caps.max_test)}", ""]


def test_recipe_of_the_paper_profile_differs_only_where_the_paper_is_not_known():
    table = views.recipe_table(load_profile("paper")).set_index("setting")
    assert set(table.index[table["same"] == "no"]) == {"batch", "updates"}
