"""The static site: every page refers to nothing outside, links lead to pages that are there."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from test_tables import write_record
from tools import site


@pytest.fixture
def results(tmp_path) -> Path:
    folder = tmp_path / "mini"
    for arm, value in zip(("GN-OC-L", "JMP-L"), (4.0, 2.0)):
        write_record(folder, "qm9_mu", arm, value, "D")
    (folder / "notebooks").mkdir()
    for name, words in (("00_start_here", "# 00 · Start\n\n$RI = E_a$, see [next](04_qm9.ipynb), "
                         "[code](../jmp_lib/x.py)"), ("04_qm9", "# 04 · QM9")):
        shown = new_output("execute_result", {"text/html": "<b>42</b>"}, execution_count=1)
        cells = [new_markdown_cell(words), new_code_cell("print(1 < 2)", outputs=[shown])]
        nbformat.write(new_notebook(cells=cells), folder / "notebooks" / f"{name}.ipynb")
    path = folder / "notebooks" / "04_qm9.ipynb"
    solved = nbformat.read(path, as_version=4)
    solved.cells.append(new_code_cell("print(7)", metadata={"tags": ["solution"]}))
    nbformat.write(solved, path)
    (folder / "report.html").write_text('<nav aria-label="contents"></nav><a '
                                        'href="notebooks/04_qm9.ipynb">04</a><a href="#x">x</a>')
    return folder


def test_pages_lead_to_pages_and_load_nothing(results, tmp_path):
    first = site.build([results], tmp_path / "site")
    pages = {path: path.read_text() for path in first.parent.rglob("*.html")}
    assert {p.relative_to(first.parent).as_posix() for p in pages} >= {"index.html", "README.html",
                                                                       "mini/04_qm9.html", "mini/report.html"}
    for path, text in pages.items():
        assert not re.search(r"<script|<link|@import|url\(", text), path
        assert all(address.startswith("data:") for address in re.findall(r'\bsrc="([^"]*)"', text)), path
        for address in re.findall(r'\bhref="([^"#]+)', text):
            assert (address.startswith(("http", "mailto:"))
                    or (path.parent / address).is_file()), f"{path.name} -> {address}"
    start = pages[first.parent / "mini" / "00_start_here.html"]
    assert ('<a href="04_qm9.html">next</a>' in start and "<b>42</b>" in start
            and 'alt="RI = E_a"' in start and "code" in start)
    assert '<a rel="next" href="../mini/04_qm9.html">04 · QM9 →</a>' in start
    report = pages[first.parent / "mini" / "report.html"]
    assert ('<a href="04_qm9.html">04</a>' in report
            and '<a href="../index.html">' in report), "a report leads to pages, not to notebooks"
    task = pages[first.parent / "mini" / "04_qm9.html"]
    assert "7" in task.partition("<details><summary>Solution</summary>")[2].partition("</details>")[0], (
        "a solution is folded")
    assert "+50" in pages[first] and "never a reproduction" in " ".join(pages[first].split())


def test_other_folders_are_left_alone_and_nothing_to_show_is_said(results, tmp_path):
    (tmp_path / "other").mkdir()
    with pytest.raises(ValueError, match="is no site"):
        site.build([results], tmp_path / "other")
    with pytest.raises(FileNotFoundError, match="no executed notebooks"):
        site.build([tmp_path / "nothing"], tmp_path / "site")
