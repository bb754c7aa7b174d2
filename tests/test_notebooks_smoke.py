"""Every notebook through papermill in the smoke profile, by the command that `make reproduce` uses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]
FAMILIES = ("qm9", "rmd17", "md22", "spice", "matbench", "qmof")
ARMS = ("GN-OC-S", "GN-OC-L", "JMP-S", "JMP-L")


def command(results: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess:
    """``python -m jmp_lib reproduce`` from a folder that is not the checkout."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-m", "jmp_lib", "reproduce", "--profile", "smoke", "--results-dir",
                           str(results), *arguments], cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="session")
def smoke(tmp_path_factory) -> tuple[Path, str]:
    """Folder of results of all notebooks, and what the command printed."""
    folder = tmp_path_factory.mktemp("smoke")
    done = command(folder / "results", folder)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return folder / "results", done.stdout


def test_it_ends_by_naming_the_files_to_open(smoke):
    results, printed = smoke
    closing = printed[printed.index("Open:"):]
    for name in ("report.html", "tsne.html", "tables/all_tasks.csv", "notebooks/13_paper_tables.ipynb", "figures"):
        assert str(results / name) in closing and (results / name).exists()


def test_every_notebook_has_an_executed_copy_without_errors(smoke):
    copies = sorted((smoke[0] / "notebooks").glob("*.ipynb"))
    assert [p.stem[:2] for p in copies] == [f"{n:02d}" for n in range(16)]
    for path in copies:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
        assert outputs and not any(o.output_type == "error" or o.get("name") == "stderr" for o in outputs), path.name
        assert "papermill" not in notebook.metadata and str(ROOT) not in path.read_text()


def test_records_and_the_table_of_all_tasks(smoke):
    results, _ = smoke
    assert sorted(p.name for p in (results / "records" / "pretrain").iterdir()) == ["large.json", "small.json"]
    table = pd.read_csv(results / "tables" / "all_tasks.csv")
    assert {"task", "family", "arm", "metric", "value", "unit", "data", "n_train", "n_test", "record"} <= set(table)
    assert len(table) == 24 and set(zip(table["family"], table["arm"])) == {(f, a) for f in FAMILIES for a in ARMS}
    for row in table.itertuples():
        record = json.loads((results / row.record).read_text())
        assert record["value"] == pytest.approx(row.value, rel=1e-6) and record["profile"] == "smoke"
    assert table["value"].notna().all() and table["data"].str.contains("-mini").all()


def test_tables_keep_published_and_own_values_apart(smoke):
    results, _ = smoke
    table = pd.read_csv(results / "tables" / "table3.csv")
    assert {"published JMP-L", "own JMP-L"} <= set(table) and len(table) == 10
    assert table["own JMP-L"].isna().all(), "values of the smoke profile never stand beside published ones"


def test_figures_are_saved_twice(smoke):
    figures = smoke[0] / "figures"
    names = {p.stem for p in figures.glob("*.png")}
    assert {f"{n:02d}" for n in (*range(1, 13), 14, 15)} == {name[:2] for name in names}
    assert names == {p.stem for p in figures.glob("*.svg")}
    assert {"12_tsne_by_set", "12_tsne_by_domain", "10_scaling", "11_speedup_large", "03_pretraining_curves",
            "05_rmd17_parity", "05_rmd17_learning_curves"} <= names


def test_a_second_run_repeats_nothing(smoke, tmp_path):
    results, _ = smoke
    watched = [*(results / "notebooks").iterdir(), *(results / "records").rglob("*.json")]
    before = {path: path.stat().st_mtime_ns for path in watched}
    done = command(results, tmp_path)
    assert done.returncode == 0 and done.stdout.count("done and unchanged") == 16
    assert before == {path: path.stat().st_mtime_ns for path in watched}


def test_papermill_alone_from_another_folder_refuses_unknown_parameters(tmp_path):
    arguments = [str(ROOT / "notebooks" / "04_qm9.ipynb"), "out.ipynb", "-p", "profile", "smoke", "-p", "targts", "mu"]
    done = subprocess.run([sys.executable, "-m", "papermill", *arguments], cwd=tmp_path, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode != 0 and "unknown parameter 'targts'" in done.stderr and "'targets'" in done.stderr
