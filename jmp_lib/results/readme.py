"""Keeps the measured parts of README.md in step with the shipped records: ``python -m jmp_lib.results.readme``.

Measured are the blocks between marks (summaries of mini and published_small; speed, from the measurements of
``tools.benchmarks``) and the last column of the table of notebooks.
"""

from __future__ import annotations

import json
import re
import sys
import textwrap
from pathlib import Path

from jmp_lib import paths
from jmp_lib.data.families import FAMILIES
from jmp_lib.files import write_atomically
from jmp_lib.records import load_pretraining_records, load_records
from jmp_lib.results.summary import baseline_summary, computing_summary, markdown_table, summary, variant_summary

CHAPTER_OF = {"pretrain": "02", **{family.name: family.notebook[:2] for family in FAMILIES.values()}}
WITHOUT_TRAINING = ("00", "01", "09", "10", "11", "12", "14")
CHAPTER = re.compile(r"^(\| `(\d\d)_\w+` \|.*\| )([^|]*)( \|)$", re.MULTILINE)
CASES = {"molecules": "8 aspirin, direct forces", "molecules-gradient": "8 aspirin, gradient forces",
         "slabs": "4 Cu(111)+CH3OH slabs, direct forces", "slabs-gradient": "2 such slabs, gradient forces",
         "slabs-gradient-4": "4 such slabs, gradient forces"}  # fmt: skip
HEADER = ["training step of JMP-S", "s", "GFLOP", "GFLOP/s", "time / ideal", "peak GB", "time / official",
          "memory / official"]


def computing_minutes(results_dir: str | Path) -> dict[str, float]:
    """Number of a notebook -> minutes of computing of its records, in sum over runs; notebooks without runs are absent."""
    minutes: dict[str, float] = {}
    for record in [*load_pretraining_records(Path(results_dir)), *load_records(Path(results_dir))]:
        chapter = CHAPTER_OF.get(record.get("family", "pretrain"))
        if chapter:
            minutes[chapter] = minutes.get(chapter, 0.0) + record["wall_time_s"] / 60
    return minutes


def filled(text: str, results_dir: str | Path) -> str:
    """README text with its measured parts computed from ``results_dir`` and the folders beside it; other cells stay.

    Raises ValueError when the marks are missing.
    """
    small, benchmarks = (Path(results_dir).parent / name for name in ("published_small", "benchmarks"))
    blocks = {"summary of results/shipped/mini": summary(results_dir)}
    if (small / "tables" / "scaling.csv").is_file():
        parts = [part(small) for part in (summary, variant_summary, baseline_summary, computing_summary)]
        blocks["summary of results/shipped/published_small"] = "\n\n".join(parts).strip()
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
    """Table of the training step against the official implementation, and a sentence for each other record.

    Ideal: the operations of the step at the speed of one matrix product in the same run. Time / official is scaled by that
    speed as well, because the official implementation was measured on another day. Raises FileNotFoundError without
    ``step.json``.
    """
    records = {path.stem: json.loads(path.read_text()) for path in Path(folder).glob("*.json")}
    if "step" not in records:
        raise FileNotFoundError(f"there is no {folder}/step.json: run `python -m tools.benchmarks.step` first")
    step = records["step"]
    other = Path(step.get("allocator", "")).name.split(".")[0].removeprefix("lib")
    rows = [_step(CASES[name] + suffix, row) for cases, suffix in (("cases", ""), ("cases_with_allocator", f", {other}"))
            for name, row in step.get(cases, {}).items()]
    rate = max(row["product_rates"]["edges"] for row in step["cases"].values())
    words = (f"Best of the timed steps, {step['threads']} threads of {step['cpu']}, float32, "
             f"torch {step['versions']['torch']}; a product of 3346x512 by 512x512 ran at up to {rate:.0f} "
             "GFLOP/s. Records: `results/shipped/benchmarks/`.")
    others = [textwrap.fill(f"- {sentence(records[name])}", 120, subsequent_indent="  ")
              for name, sentence in SENTENCES.items() if name in records]
    return "\n".join([markdown_table(HEADER, rows, rule="---"), "", textwrap.fill(words, 120), "", *others]).rstrip()


def _step(name: str, row: dict) -> list[str]:
    official = ["", ""]
    if "memory_to_official" in row:
        official = [f"{row['time_to_official']['edges']:.2f}", f"{row['memory_to_official']:.2f}"]
    return [name, f"{row['best_seconds']:.2f}", f"{row['gflop']:.0f}", f"{row['gflop_per_second']:.0f}",
            f"{row['times_ideal']:.2f}", f"{row['peak_gb']:.2f}", *official]


def _graphs(record: dict) -> str:
    found = [f"{b['milliseconds']['build']:.1f} ms ({b['faster_by'][0]:.0f} to {b['faster_by'][1]:.0f} times faster than the "
             f"official) for {b['batch']}" for b in record["batches"] if "faster_by" in b]
    return "Graphs and indices: " + ", ".join(found) + "."


def _scaling(record: dict) -> str:
    first, *_, last = record["crystal"]["sizes"]
    return (f"Cost of graphs from {first['atoms']} to {last['atoms']} atoms of a crystal: {1e3 * first['total']:.1f} ms to "
            f"{1e3 * last['total']:.0f} ms, a power of {record['crystal']['exponent']['total']:.2f} in the number of atoms "
            "from 1,000 on.")


def _small(record: dict) -> str:
    found = {(n["network"], n["gradient_forces"]): n for n in record["networks"]}
    one, two = found["narrow", False], found["narrow", True]
    return (f"A narrow network on 8 molecules of 9 atoms: {one['ms']:.0f} ms and {one['operators']} operators a step with "
            f"direct forces, {two['ms']:.0f} ms and {two['operators']} with gradient forces.")


def _feed(record: dict) -> str:
    (name, case), (small, narrow) = record["cases"].items()
    return (f"Batches of the joint pre-training ({name}): {case['structures_per_second']:.0f} structures/s by one core, so "
            f"2,000 structures/s take {case['cores_for_2000']}; a training of JMP-S on this machine waits "
            f"{100 * case['waiting_share']:.2f} % of its time for them, one of the {small} "
            f"{100 * narrow['waiting_share']:.0f} %.")


SENTENCES = {"graphs": _graphs, "scaling": _scaling, "small": _small, "feed": _feed}


def main() -> int:
    """Rewrites README.md of the checkout from results/shipped."""
    readme = (paths.checkout_dir() or Path.cwd()) / "README.md"
    text = filled(readme.read_text(encoding="utf-8"), paths.shipped_dir("mini"))
    with write_atomically(readme) as stream:
        stream.write(text)
    print(readme)
    return 0


if __name__ == "__main__":
    sys.exit(main())
