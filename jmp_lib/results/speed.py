"""The measurements of ``tools.benchmarks`` as Markdown, for the README.

    print(speed("results/shipped/benchmarks"))
"""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

CASES = {"molecules": "8 aspirin, direct forces", "molecules-gradient": "8 aspirin, gradient forces",
         "slabs": "4 Cu(111)+CH3OH slabs, direct forces", "slabs-gradient": "2 such slabs, gradient forces",
         "slabs-gradient-4": "4 such slabs, gradient forces"}  # fmt: skip
HEADER = ("training step of JMP-S", "s", "GFLOP", "GFLOP/s", "time / ideal", "peak GB", "time / official", "memory / official")


def speed(folder: str | Path) -> str:
    """Table of the training step against the official implementation, and a sentence for each other record.

    Ideal: the operations of the step at the speed of one matrix product in the same run. Time / official is scaled by that
    speed as well, because the official implementation was measured on another day. Raises FileNotFoundError without
    ``step.json``.
    """
    folder = Path(folder)
    step = _read(folder / "step.json")
    lines = ["| " + " | ".join(HEADER) + " |", "|" + "---|" * len(HEADER)]
    other = Path(step.get("allocator", "")).name.split(".")[0].removeprefix("lib")
    for rows, suffix in ((step["cases"], ""), (step.get("cases_with_allocator", {}), f", {other}")):
        lines += [_row(CASES[name] + suffix, row) for name, row in rows.items()]
    rate = max(row["product_rates"]["edges"] for row in step["cases"].values())
    lines += ["", textwrap.fill(f"Best of the timed steps, {step['threads']} threads of {step['cpu']}, float32, torch {step['versions']['torch']}; "
              f"a product of 3346x512 by 512x512 ran at up to {rate:.0f} GFLOP/s. Records: `results/shipped/benchmarks/`.", 120)]
    others = [words(_read(folder / f"{name}.json")) for name, words in OTHERS.items() if (folder / f"{name}.json").is_file()]
    return "\n".join(lines + ["", *(textwrap.fill(f"- {words}", 120, subsequent_indent="  ") for words in others)]).rstrip()


def _row(name: str, row: dict) -> str:
    official = [f"{row['time_to_official']['edges']:.2f}", f"{row['memory_to_official']:.2f}"] \
        if "memory_to_official" in row else ["", ""]
    cells = [name, f"{row['best_seconds']:.2f}", f"{row['gflop']:.0f}", f"{row['gflop_per_second']:.0f}",
             f"{row['times_ideal']:.2f}", f"{row['peak_gb']:.2f}", *official]
    return "| " + " | ".join(cells) + " |"


def _graphs(record: dict) -> str:
    found = [f"{b['milliseconds']['build']:.1f} ms ({b['faster_by'][0]:.0f} to {b['faster_by'][1]:.0f} times faster than the "
             f"official) for {b['batch']}" for b in record["batches"] if "faster_by" in b]
    return "Graphs and indices: " + ", ".join(found) + "."


def _scaling(record: dict) -> str:
    sizes = record["crystal"]["sizes"]
    return (f"Cost of graphs from {sizes[0]['atoms']} to {sizes[-1]['atoms']} atoms of a crystal: {1e3 * sizes[0]['total']:.1f} ms to "
            f"{1e3 * sizes[-1]['total']:.0f} ms, a power of {record['crystal']['exponent']['total']:.2f} in the number of atoms "
            "from 1,000 on.")


def _small(record: dict) -> str:
    found = {(n["network"], n["gradient_forces"]): n for n in record["networks"]}
    one, two = found["narrow", False], found["narrow", True]
    return (f"A narrow network on 8 molecules of 9 atoms: {one['ms']:.0f} ms and {one['operators']} operators a step with direct "
            f"forces, {two['ms']:.0f} ms and {two['operators']} with gradient forces.")


def _feed(record: dict) -> str:
    (name, case), (small, narrow) = record["cases"].items()
    return (f"Batches of the joint pre-training ({name}): {case['structures_per_second']:.0f} structures/s by one core, so "
            f"2,000 structures/s take {case['cores_for_2000']}; a training of JMP-S on this machine waits "
            f"{100 * case['waiting_share']:.2f} % of its time for them, one of the {small} {100 * narrow['waiting_share']:.0f} %.")


OTHERS = {"graphs": _graphs, "scaling": _scaling, "small": _small, "feed": _feed}


def _read(path: Path) -> dict:
    return json.loads(path.read_text())
