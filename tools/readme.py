"""Keeps the measured parts of README.md in step with the shipped records: ``python -m tools.readme``.

Measured are the blocks between marks (summaries of mini, its ablations and published_small; speed, from the measurements of
``tools.benchmarks`` by the template ``speed.md.j2``) and the last column of the table of notebooks.
"""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path

import jinja2

from jmp_lib import paths
from jmp_lib.data.families import FAMILIES
from jmp_lib.files import write_atomically
from jmp_lib.records import load_pretraining_records, read_record
from jmp_lib.results.summary import baseline_summary, scoreboard_summary, summary, variant_summary
from jmp_lib.results.values import finetune_records

CHAPTER_OF = {"pretrain": "03", **{family.name: family.notebook[:2] for family in FAMILIES.values()}}
WITHOUT_TRAINING = ("00", "01", "02", "10", "11", "12", "13", "15")
CHAPTER = re.compile(r"^(\| `(\d\d)_\w+` \|.*\| )([^|]*)( \|)$", re.MULTILINE)


def computing_minutes(results_dir: str | Path) -> dict[str, float]:
    """Number of a notebook -> minutes of computing of its records, in sum over runs; notebooks without runs are absent."""
    minutes: dict[str, float] = {}
    trained = [r for folder in (Path(results_dir), Path(results_dir) / "live") for r in load_pretraining_records(folder) if "shipped" not in r]
    for record in [*trained, *finetune_records(Path(results_dir) / "records")]:
        chapter = CHAPTER_OF.get(record.get("family", "pretrain"))
        if chapter:
            minutes[chapter] = minutes.get(chapter, 0.0) + record["wall_time_s"] / 60
    return minutes


def computing_summary(results_dir: str | Path) -> str:
    """How many runs a profile and its variants have and the minutes of computing of their records, added up."""
    folder = Path(results_dir)
    found = [read_record(p) for p in (*folder.glob("records/**/*.json"), *folder.glob("variants/*/records/**/*.json"))]
    found = [record for record in found if "shipped" not in record]
    minutes = sum(record["wall_time_s"] for record in found) / 60
    return f"All {len(found)} runs, with pre-trainings and baselines, took {minutes:.0f} minutes of computing, added up."


def filled(text: str, results_dir: str | Path) -> str:
    """README text with its measured parts computed from ``results_dir`` and the folders beside it; other cells stay.

    Raises ValueError when the marks are missing.
    """
    small, ablations, benchmarks = (Path(results_dir).parent / name for name in ("published_small", "mini-ablations", "benchmarks"))
    blocks = {"summary of results/shipped/mini": summary(results_dir),
              "scoreboard of results/shipped/mini": scoreboard_summary(results_dir, "results/shipped/mini/")}
    if (small / "tables" / "scaling.csv").is_file():
        parts = [part(small) for part in (summary, variant_summary, baseline_summary, computing_summary)]
        blocks["summary of results/shipped/published_small"] = "\n\n".join(parts).strip()
    if (ablations / "variants").is_dir():
        blocks["summary of results/shipped/mini-ablations"] = variant_summary(ablations)
    if (benchmarks / "step.json").is_file():
        blocks["speed of results/shipped/benchmarks"] = speed(benchmarks)
    if f"<!-- {next(iter(blocks))} -->" not in text or not CHAPTER.search(text):
        raise ValueError("README.md has lost the marks of its measured block or its table of notebooks: put them back")
    for mark, block in blocks.items():
        between = re.compile(rf"(?<=<!-- {mark} -->\n).*?(?=<!-- end -->)", re.DOTALL)
        text = between.sub(lambda _, words=block: words + "\n", text, count=1)
    times = {chapter: "no training" for chapter in WITHOUT_TRAINING}
    times |= {chapter: f"{value:.0f} min" for chapter, value in computing_minutes(results_dir).items()}
    return CHAPTER.sub(lambda m: m[1] + times.get(m[2], m[3]) + m[4], text)


def speed(folder: str | Path) -> str:
    """Table of the training step, and a sentence for each other record.

    Ideal: the operations of the step at the speed of one matrix product in the same run. Raises FileNotFoundError without
    ``step.json``.
    """
    records = {path.stem: json.loads(path.read_text()) for path in Path(folder).glob("*.json")}
    if "step" not in records:
        raise FileNotFoundError(f"there is no {folder}/step.json: run `python -m tools.benchmarks step` first")
    made = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent), trim_blocks=True, lstrip_blocks=True)
    made.filters |= {"fixed": lambda value, digits=0: f"{value:.{digits}f}",
                     "wrap": lambda text: textwrap.fill(text, 120, subsequent_indent="  " * text.startswith("-"))}
    return made.get_template("speed.md.j2").render(records).rstrip()


if __name__ == "__main__":
    readme = (paths.checkout_dir() or Path.cwd()) / "README.md"
    changed = filled(readme.read_text(encoding="utf-8"), paths.shipped_dir("mini"))
    with write_atomically(readme) as stream:
        stream.write(changed)
    print(readme)
