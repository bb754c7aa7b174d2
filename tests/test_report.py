"""The HTML report: one file that refers to no other, with the values of the records and every figure."""

from __future__ import annotations

import base64
import html
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ase.data import chemical_symbols
from PIL import Image

from jmp_lib.__main__ import main
from jmp_lib.data.tasks import load_task_data
from jmp_lib.results.pages import frame_html, number, show_parity, table, table_html, write_report
from jmp_lib.results.views import merged

MINI = Path(__file__).resolve().parents[1] / "results" / "shipped" / "mini"
pytestmark = pytest.mark.skipif(not (MINI / "records" / "pretrain").is_dir(), reason="results/shipped/mini is not here")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Some records and figures of the shipped results."""
    folder = tmp_path_factory.mktemp("results")
    for name in ("pretrain", "finetune/rmd17_ethanol", "finetune/qmof_bandgap"):
        shutil.copytree(MINI / "records" / name, folder / "records" / name)
    (folder / "figures").mkdir()
    for name in ("05_rmd17_arms", "10_scaling"):
        shutil.copy(MINI / "figures" / f"{name}.png", folder / "figures")
    (folder / "tsne.html").write_text("<p title='a'>points & colours</p>")
    return folder


@pytest.fixture(scope="module")
def page(folder) -> str:
    return write_report(folder, "mini").read_text()


def test_it_refers_to_no_other_file(page):
    assert len(page) < 5_000_000
    assert all(address.startswith("data:") for address in re.findall(r'\bsrc="([^"]*)"', page))
    # links may lead to the executed notebooks beside it; nothing is loaded from them
    assert all(address.startswith(("#", "notebooks/")) for address in re.findall(r'\bhref="([^"]*)"', page))
    assert not re.search(r"<link|@import|url\(", page)
    for key in re.findall(r'href="#(\w+)"', page):
        assert f'id="{key}"' in page
    assert 'srcdoc="&lt;p title=&#39;a&#39;&gt;points &amp; colours&lt;/p&gt;"' in page


def test_values_of_the_records_stand_in_their_own_columns(page, folder):
    record = json.loads((folder / "records" / "finetune" / "rmd17_ethanol" / "JMP-L.json").read_text())
    row = next(line for line in page.splitlines() if line.startswith("<tr><td>ethanol<sup>"))
    assert (f'<td class="own"><b>{record["value"]:.1f}</b></td>' in row
            and "<td><b>2.0</b></td>" in row), "best of each half is bold"
    assert ('<th colspan="4" class="own" scope="colgroup">this workbook</th>' in page
            and "paper (published data)" in page)
    assert ("meV Å⁻¹" in row and "rmd17-mini-… (GFN2-xTB energy and forces), "
            "200 training and 100 test structures" in page)
    assert "never a reproduction of a printed value" in page and "10 records" in page


def test_figures_are_embedded_with_words(page):
    assert page.count("data:image/png;base64,") == 2
    assert "Mean relative improvement of one arm over another" in page


def test_every_figure_of_the_notebooks_has_a_caption(folder, tmp_path):
    shutil.copytree(folder / "records", tmp_path / "records")
    (tmp_path / "figures").mkdir()
    names = sorted(path.stem for path in (MINI / "figures").glob("*.png"))
    for name in names:
        Image.new("RGB", (2, 2)).save(tmp_path / "figures" / f"{name}.png")
    captions = re.findall("<figcaption>(.*?)</figcaption>", write_report(tmp_path, "mini").read_text())
    assert len(captions) == len(names) and not set(captions) & set(names) and min(map(len, captions)) > 10


def test_embedded_figures_keep_their_colours(page):
    data = base64.b64decode(re.search(r"data:image/png;base64,([^\"]+)", page)[1])
    with Image.open(io.BytesIO(data)) as shrunk, Image.open(MINI / "figures" / "05_rmd17_arms.png") as original:
        difference = np.abs(np.asarray(shrunk.convert("RGB"), int) - np.asarray(original.convert("RGB"), int))
    assert difference.max() <= 16


def test_the_same_records_give_the_same_page(page, folder):
    assert write_report(folder, "mini").read_text() == page
    assert sorted(p.name for p in folder.iterdir()) == ["figures", "records", "report.html", "tsne.html"]


def test_a_pre_training_alone_has_a_report(folder, tmp_path):
    shutil.copytree(folder / "records" / "pretrain", tmp_path / "records" / "pretrain")
    page = write_report(tmp_path, "mini").read_text()
    assert "2 records," in page and "fine-tuning records" not in page


def test_a_folder_without_records_is_said_in_one_sentence(tmp_path, capsys):
    assert main(["report", "--results-dir", str(tmp_path)]) == 2
    assert "holds no records" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_the_command_writes_it(folder, capsys):
    assert main(["report", "--profile", "mini", "--results-dir", str(folder)]) == 0
    assert "report.html" in capsys.readouterr().out


def test_smoke_values_come_with_a_warning_and_stay_out_of_the_tables(folder, tmp_path):
    path = tmp_path / "records" / "finetune" / "rmd17_ethanol" / "JMP-L.json"
    path.parent.mkdir(parents=True)
    record = json.loads((folder / "records" / "finetune" / "rmd17_ethanol" / "JMP-L.json").read_text())
    path.write_text(json.dumps(record | {"profile": "smoke", "comparable": False}))
    page = write_report(tmp_path, "smoke").read_text()
    row = next(line for line in page.splitlines() if line.startswith("<tr><td>ethanol</td>"))
    assert "numbers mean nothing" in page and '<td class="own">' in row and not re.search(r'class="own">\d', row)


@pytest.mark.parametrize(("value", "text"), [(0.01234567, "0.01235"), (float("nan"), ""), (None, ""), (12, "12"),
                                             (1234567.8, "1,235,000"), (12345, "12,345"), (0.00012349, "0.0001235"),
                                             (True, "yes"), (3e-7, "3e-07"), (0.0, "0"), (-0.0, "0"), ("<b>", "<b>")])
def test_numbers_in_cells(value, text):
    assert number(value) == text


def test_a_gain_has_a_sign_and_its_interval_in_one_cell_and_a_share_has_none():
    frame = pd.DataFrame({"set": ["a"], "share / %": [25.0], "new over old / %": [2.0], "95 % from": [-1.04],
                          "95 % to": [5.0], "MAE": [0.0657], "MAE from": [0.0462], "MAE to": [0.0857],
                          "official train / val / test": ["110831 / - / 12"]})
    made = table(frame)
    assert [name for _, name in made["columns"]] == ["set", "share / %", "new over old / % [95 %]", "MAE [95 %]",
                                                     "official train / val / test"]
    assert list(made["rows"][0]) == ["a", 25.0, "+2.0 [-1.0, +5.0]", "0.0657 [0.0462, 0.0857]", "110,831 / - / 12"]


def test_what_records_say_is_escaped(folder, tmp_path):
    path = tmp_path / "records" / "finetune" / "rmd17_ethanol" / "JMP-L.json"
    path.parent.mkdir(parents=True)
    record = json.loads((folder / "records" / "finetune" / "rmd17_ethanol" / "JMP-L.json").read_text())
    path.write_text(json.dumps(record | {"data": "<script>alert(1)</script>", "device": "<b>"}))
    page = write_report(tmp_path, "<u>").read_text()
    assert "<script>alert" not in page and page.count("<script") == 1 and "&lt;script&gt;alert" in page
    assert "&lt;b&gt;" in page and "results of the profile &lt;u&gt;" in page


def test_the_worst_predicted_structures_are_in_the_viewer(page):
    shown = json.loads(re.search(r"const shown = (.*?), which = ", page)[1])
    assert [words.split(":")[0] for words in shown["structures"]] == ["rmd17_ethanol", "qmof_bandgap"]
    assert (len(shown["structures"][next(iter(shown["structures"]))]["pos"]) == 9
            and "is off by" in next(iter(shown["structures"])))


def test_points_of_a_parity_plot_lead_to_their_structures():
    data = load_task_data("qm9_mu", caps={"test": 3})
    test, record = data.test, {"task": "qm9_mu", "data_kind": "generated",
                               "data_sha256": data.data_sha256, "n_test": 3, "unit": "D"}
    true, predicted = np.array([1.0, 2.0, 3.0]), np.array([1.5, 2.0, 2.0])
    page = html.unescape(show_parity([record], {"qm9_mu": (true, predicted)}, {"qm9_mu": np.ones(3)}).data)
    shown = json.loads(re.search(r"const shown = (.*?), which = ", page)[1])
    (x, y, key), (_, _, other) = shown["points"]["qm9_mu"][0], shown["points"]["qm9_mu"][2]
    assert (x, y) == (0.0, 0.5) and shown["units"] == {"qm9_mu": "D"} and key != other
    assert shown["structures"][key]["elements"] == [chemical_symbols[z] for z in test[0]["atomic_numbers"].tolist()]
    forces = record | {"task": "rmd17_ethanol", "unit": "meV/A"}
    assert show_parity([forces], {"rmd17_ethanol": (np.ones((4, 3)), np.ones((4, 3)))}) is None
    for other in ({"data_kind": "published"}, {"data_sha256": "0" * 64}, {"fold": 1}):
        assert show_parity([record | other], {"qm9_mu": (true, predicted)}) is None, "those are other structures"


def test_a_data_frame_in_a_notebook_has_units_and_no_counting_index():
    frame = pd.DataFrame({"task": ["a", "b", "c"], "value": [1535.0, float("nan"), -0.0],
                          "unit": "meV/A"})[lambda t: t.task != "b"]
    cells = re.findall("<td[^>]*>(.*?)</td>", frame_html(frame))
    assert cells == ["a", "1535", "meV Å⁻¹", "c", "0", "meV Å⁻¹"]
    assert ('<td style="text-align: left">a</td>'
            in frame_html(frame)), "JupyterLab drops the style of a notebook that it does not trust"
    assert re.findall("<td[^>]*>(.*?)</td>", frame_html(frame.set_index(["task", "unit"])))[:2] == ["a", "meV Å⁻¹"]


def test_cells_of_a_table_of_words_name_their_column_for_narrow_screens():
    frame = pd.DataFrame({"claim": ["a"], "paper": ["59 %"]})
    assert 'data-of="paper: ">59 %' in table_html(frame, words=True) and "data-of" not in table_html(frame)


def test_tasks_of_equal_numbers_share_a_row():
    table = pd.DataFrame({"task": ["qm9_mu", "qm9_g", "oc20"], "n": [1, 1, 2], "why not": ""})
    assert merged(table, "task").values.tolist() == [["qm9 (2 tasks)", 1], ["oc20", 2]]
