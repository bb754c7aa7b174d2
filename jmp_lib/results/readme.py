"""Keeps the measured parts of README.md in step with the shipped results: ``python -m jmp_lib.results.readme``.

Measured are the blocks between marks (summaries of mini and published_small, speed) and the last column of the table of
notebooks.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from jmp_lib import paths
from jmp_lib.files import write_atomically
from jmp_lib.records import load_pretraining_records, load_records
from jmp_lib.results.speed import speed
from jmp_lib.results.summary import baseline_summary, computing_summary, summary, variant_summary

CHAPTER_OF = {"pretrain": "02", "qm9": "03", "rmd17": "04", "md22": "05", "spice": "06", "matbench": "07", "qmof": "08"}
WITHOUT_TRAINING = ("00", "01", "09", "10", "11", "12", "14")
BLOCK, SMALL, SPEED = (re.compile(rf"(?<=<!-- {what} -->\n).*?(?=<!-- end -->)", re.DOTALL) for what in
                       ("summary of results/shipped/mini", "summary of results/shipped/published_small", "speed of results/shipped/benchmarks"))
CHAPTER = re.compile(r"^(\| `(\d\d)_\w+` \|.*\| )([^|]*)( \|)$", re.MULTILINE)


def computing_minutes(results_dir: str | Path) -> dict[str, float]:
    """Number of a notebook -> minutes of computing of its records, in sum over runs; notebooks without runs are absent."""
    minutes: dict[str, float] = {}
    for record in [*load_pretraining_records(Path(results_dir)), *load_records(Path(results_dir))]:
        chapter = CHAPTER_OF.get(record.get("family", "pretrain"))
        if chapter:
            minutes[chapter] = minutes.get(chapter, 0.0) + record["wall_time_s"] / 60
    return minutes


def filled(text: str, results_dir: str | Path) -> str:
    """README text with its measured parts computed from ``results_dir``; other cells stay as they are.

    Raises ValueError when the marks are missing.
    """
    if not BLOCK.search(text) or not CHAPTER.search(text):
        raise ValueError("README.md has lost the marks of its measured block or its table of notebooks: put them back")
    minutes = computing_minutes(results_dir)
    text = BLOCK.sub(lambda _: summary(results_dir) + "\n", text, count=1)
    small = Path(results_dir).parent / "published_small"
    if (small / "tables" / "scaling.csv").is_file():
        words = "\n\n".join([summary(small), variant_summary(small), baseline_summary(small),
                             computing_summary(small)]).strip() + "\n"
        text = SMALL.sub(lambda _: words, text, count=1)
    benchmarks = Path(results_dir).parent / "benchmarks"
    if (benchmarks / "step.json").is_file():
        text = SPEED.sub(lambda _: speed(benchmarks) + "\n", text, count=1)
    times = {chapter: "no training" for chapter in WITHOUT_TRAINING}
    times.update({chapter: f"{value:.0f} min" for chapter, value in minutes.items()})
    return CHAPTER.sub(lambda m: m[1] + times.get(m[2], m[3]) + m[4], text)


def main() -> int:
    """Rewrites README.md of the checkout from results/shipped."""
    root = paths.checkout_dir() or Path.cwd()
    readme = root / "README.md"
    text = filled(readme.read_text(encoding="utf-8"), paths.shipped_dir("mini"))
    with write_atomically(readme) as stream:
        stream.write(text)
    print(readme)
    return 0


if __name__ == "__main__":
    sys.exit(main())
