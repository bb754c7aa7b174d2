"""The README's measured numbers are those of the shipped tables, and its files exist."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from jmp_lib.results.summary import summary
from jmp_lib.results.values import finetune_records
from jmp_lib.train.loading import shipped_record
from tools.readme import PAGES, blocks, computing_minutes, filled, findings

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
SHIPPED = ROOT / "results" / "shipped"
MINI = SHIPPED / "mini"


pages = pytest.mark.parametrize("page", PAGES)


def test_measured_block_is_computed_from_the_shipped_tables():
    block = (ROOT / "docs" / "results.md").read_text().split("<!-- summary of results/shipped/mini "
                                                             "-->")[1].split("<!-- end -->")[0].strip()
    assert block.startswith(summary(MINI))


@pages
def test_measured_parts_are_computed_from_the_shipped_records(page):
    """`make readme` mends this."""
    text = (ROOT / page).read_text()
    assert filled(text, SHIPPED) == text


def test_minutes_are_those_of_the_records():
    minutes = computing_minutes(MINI)
    assert f"| {minutes['05']:.0f} min |" in next(line for line in README.splitlines()
                                                  if line.startswith("| `05_rmd17`"))


def test_the_networks_have_as_many_parameters_as_it_says():
    tuned = {arm: min(r["model"]["n_parameters"] for r in finetune_records(MINI / "records") if r["arm"] == arm)
             for arm in ("JMP-S", "JMP-L")}
    numbers = [*(shipped_record(f"mini-{size}")["model"]["n_parameters"] for size in ("small", "large")),
               *tuned.values()]
    said = "Networks have {:.2f} and {:.1f} million parameters (the paper's: 30 and 235), {:.2f} and {:.2f} of which"
    assert said.format(*(number / 1e6 for number in numbers)) in README.replace("\n", " ")


def test_a_cell_that_is_not_measured_stays():
    row = "| `14_other` | | words | | about this |\n"
    changed = README.replace("| `05_rmd17`", row + "| `05_rmd17`").replace(" min |", " MIN |")
    assert row in filled(changed, SHIPPED) and " MIN |" not in filled(changed, SHIPPED)


def test_every_block_stands_on_one_page_and_is_filled_where_it_was_empty():
    texts = {page: (ROOT / page).read_text() for page in PAGES}
    marks = re.findall(r"<!-- ((?:summary|speed|scoreboard|families|findings) of [\w/-]+) -->", "".join(texts.values()))
    assert sorted(marks) == sorted(blocks(SHIPPED))
    for text in texts.values():
        emptied = re.sub(r"(<!-- [a-z]+ of [\w/-]+ -->\n).*?(<!-- end -->)", r"\1\2", text, flags=re.DOTALL)
        assert len(emptied) < len(text) and filled(emptied, SHIPPED) == text


def test_every_notebook_has_a_row():
    rows = re.findall(r"^\| `(\d\d_\w+)` \|", README, re.MULTILINE)
    assert rows == [path.stem for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]


def test_files_and_folders_that_the_readme_names_exist():
    named = set(re.findall(r"`((?:jmp_lib|notebooks|tests)/[\w/.]*)`", README))
    assert len(named) >= 8
    assert not [name for name in named if not (ROOT / name).exists()]


def test_a_count_in_the_findings_is_the_one_that_the_files_give():
    table = pd.read_csv(SHIPPED / "published_small" / "tables" / "all_tasks.csv").query(
        "arm == 'JMP-L' and not metric.str.contains('force')")
    ours = table.set_index("task")["value"]
    files = [SHIPPED / "published_small" / "records" / "baselines" / f"{task}--schnet.json" for task in ours.index]
    lower = sum(json.loads(file.read_text())["value"] < ours[file.stem.removesuffix("--schnet")] for file in files)
    assert 0 < lower < len(ours) and f"SchNet is better on {lower} of {len(ours)} |" in findings("readme", SHIPPED)


def test_the_gain_of_own_data_is_that_of_the_rates_of_the_lowest_validation_errors():
    rows = pd.read_csv(SHIPPED / "rates" / "own.csv").query("updates == 300").sort_values("best_val")
    tuned, scratch = (rows[rows["arm"] == arm].iloc[0]["test forces"] for arm in ("pre-trained", "from scratch"))
    assert f"| {100 * (1 - tuned / scratch):+.0f} % (" in findings("goals", SHIPPED)
