"""The README's measured numbers are those of the shipped tables, and its files exist."""

import re
from pathlib import Path

import pytest

from jmp_lib.results.summary import summary
from tools.readme import computing_minutes, filled

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
SHIPPED = ROOT / "results" / "shipped"
MINI = SHIPPED / "mini"


def test_measured_block_is_computed_from_the_shipped_tables():
    block = README.split("<!-- summary of results/shipped/mini -->")[1].split("<!-- end -->")[0].strip()
    assert block == summary(MINI)


def test_measured_parts_are_computed_from_the_shipped_records():
    """`make readme` mends this."""
    assert filled(README, MINI) == README
    minutes = computing_minutes(MINI)
    assert f"| {minutes['05']:.0f} min |" in next(line for line in README.splitlines() if line.startswith("| `05_rmd17`"))


def test_a_cell_that_is_not_measured_stays_and_lost_marks_are_said():
    row = "| `14_other` | | words | | about this |\n"
    changed = README.replace("| `05_rmd17`", row + "| `05_rmd17`").replace(" min |", " MIN |")
    assert row in filled(changed, MINI) and " MIN |" not in filled(changed, MINI)
    with pytest.raises(ValueError, match="lost the marks"):
        filled("# nothing", MINI)


def test_an_empty_block_is_filled_and_nothing_else_changes():
    emptied = re.sub(r"(<!-- (?:summary|speed|scoreboard) of [\w/]+ -->\n).*?(<!-- end -->)", r"\1\2", README, flags=re.DOTALL)
    assert emptied.count("<!-- end -->") == README.count("<!-- end -->") == 4 and len(emptied) < len(README)
    assert filled(emptied, MINI) == README


def test_every_notebook_has_a_row():
    rows = re.findall(r"^\| `(\d\d_\w+)` \|", README, re.MULTILINE)
    assert rows == [path.stem for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]


def test_files_and_folders_that_the_readme_names_exist():
    named = set(re.findall(r"`((?:jmp_lib|notebooks|tests)/[\w/.]*)`", README))
    assert len(named) >= 8
    assert not [name for name in named if not (ROOT / name).exists()]
