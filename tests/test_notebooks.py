"""The notebooks are clean, ordered and have strict parameters."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import nbformat
import pytest

from jmp_lib.parameters import KINDS, names_set

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
NAMES = ["00_start_here", "01_data", "02_network", "03_pretraining", "04_qm9", "05_rmd17", "06_md22", "07_spice",
         "08_matbench", "09_qmof", "10_scaling", "11_speedup", "12_embeddings", "13_paper_tables", "14_your_dataset",
         "15_how_sure"]
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)


def code_cells(path: Path) -> list[dict]:
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


def source(cell: dict) -> str:
    return "".join(cell["source"])


def test_the_order_is_complete():
    assert [path.stem for path in NOTEBOOKS] == NAMES


@each
def test_valid_clean_and_for_any_python3_kernel(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    assert (set(notebook.metadata) <= {"kernelspec", "language_info"}
            and "version" not in notebook.metadata.language_info)
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    for cell in code_cells(path):
        assert cell["outputs"] == [] and cell["execution_count"] is None
        assert set(cell["metadata"]) <= {"tags", "jupyter"}


@each
def test_parameters_cell_comes_first_and_holds_declared_literals(path):
    first, second, *others = [source(cell) for cell in code_cells(path)]
    assert code_cells(path)[0]["metadata"] == {"tags": ["parameters"]}
    names = names_set(first)
    assert names and names[0] == "profile" and 'profile = "mini"' in first
    tuples = [ast.literal_eval(node) for node in ast.walk(ast.parse(second)) if isinstance(node, ast.Tuple)]
    assert tuples == [tuple(names)], "the names given to start() are those of the parameters cell"
    assert set(names) <= set(KINDS) and "start(globals()" in second
    assert not any(names_set(cell) for cell in others), "it would count as parameters"


@each
def test_the_kind_of_data_is_that_of_the_profile(path):
    values = {node.targets[0].id: node.value.value for node in ast.parse(source(code_cells(path)[0])).body
              if isinstance(node.value, ast.Constant)}
    assert (values.get("data", "") == ""
            and values.get("data_root", "") == ""), "an empty value means: as the profile says"


@each
def test_text_says_what_the_data_are(path):
    cells = json.loads(path.read_text())["cells"]
    text = " ".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    assert re.match(rf"# {path.stem[:2]} · ", text)
    assert "profile" in " ".join(source(c) for c in cells)
    if path.stem[:2] != "00":
        assert "never a reproduction" in " ".join(text.split()) and re.search(r"xTB|CHGNet|generated", text)


@each
def test_cells_are_short(path):
    for cell in code_cells(path):
        lines = [line for line in source(cell).splitlines() if line.strip()]
        assert len(lines) <= 12 and max(map(len, lines)) <= 120


@each
def test_every_notebook_ends_with_links_that_lead_somewhere(path):
    last = "".join(json.loads(path.read_text())["cells"][-1]["source"])
    named = re.findall(r"\]\(([^)#]+)\)", last)
    assert all((path.parent / name).exists() for name in named)
    at = NAMES.index(path.stem)
    beside = {f"{NAMES[i]}.ipynb" for i in (at - 1, at + 1) if 0 <= i < len(NAMES)} | {"../docs/glossary.md"}
    assert beside <= set(named) and "In the paper:" in last
    first = "".join(json.loads(path.read_text())["cells"][0]["source"])
    assert beside <= set(re.findall(r"\]\(([^)#]+)\)", first)), "and begins with them"
    for module in re.findall(r"`(jmp_lib/[\w/.]+)`", last):
        assert (path.parents[1] / module).exists(), module


@each
def test_two_exercises_at_least_with_folded_solutions_that_run(path):
    cells = json.loads(path.read_text())["cells"]
    questions = [i for i, cell in enumerate(cells) if "<details><summary>" in "".join(cell["source"])]
    assert len(questions) >= 2
    for i in questions:
        assert cells[i + 1]["metadata"] == {"jupyter": {"outputs_hidden": True, "source_hidden": True},
                                            "tags": ["solution"]}


def test_the_map_of_the_first_notebook_names_all():
    text = json.loads(NOTEBOOKS[0].read_text())["cells"][1]["source"]
    assert re.findall(r"\((\d\d_\w+)\.ipynb\)", "".join(text)) == NAMES
