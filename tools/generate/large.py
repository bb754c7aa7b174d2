"""The large companion of the four pre-training sets: `python -m tools.generate large --out DIR
[--processes N] [--parts K]`.

It is made part by part, the four sets in turn, so that at every moment there is a mix to pre-train on (pre-training
data `large` or `large+published`, with DIR = `large` in the folder of the data). A part is a set like those of the
package, with its card, and depends on its name alone: a part that is there is not made again, one that a kill
interrupted leaves nothing, and several machines may make different parts or the same. Nothing of it is committed. A
run ends with a search for structures of test parts in it (``in_tests``); molecules of the fine-tuning tasks are left
out by name (tools/generate/molecules.py).
"""

from __future__ import annotations

import importlib
import json
import time
import zlib
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jmp_lib.data.copies import shared
from jmp_lib.data.mini import load_parts
from jmp_lib.data.tasks import TASKS, load_task_data
from jmp_lib.pool import Outcome, run_jobs
from tools.generate.cards import software_versions, write_set

SEED = 1526


class Plan(NamedTuple):
    """One set: its module with `large_part(rng, count)`, structures in all and of a part, words for the cards."""

    module: str
    structures: int
    part: int
    stands_for: str
    level_of_theory: str

    @property
    def parts(self) -> int:
        return -(-self.structures // self.part)


GFN2 = "GFN2-xTB energy and forces (tblite)"
PLANS = {
    "anix-large": Plan("anix", 100_000, 500, "ANI-1x", GFN2),
    "t1x-large": Plan("t1x", 50_000, 500, "Transition-1x", GFN2),
    "oc20-large": Plan("slabs", 8_000, 120, "OC20 S2EF", "GFN1-xTB, Gamma point only, 3000 K; adsorption energies"),
    "oc22-large": Plan("oxides", 5_000, 80, "OC22 S2EF", "CHGNet 0.3.0: ML-surrogate labels, not electronic structure"),
}


def schedule() -> list[tuple[str, int]]:
    """(set, number) of every part in the order in which they are made: at any point all sets have the same share."""
    order = [((number + 0.5) / plan.parts, name, number) for name, plan in PLANS.items()
             for number in range(plan.parts)]
    return [(name, number) for _, name, number in sorted(order)]


def part_name(name: str, number: int) -> str:
    """Of the files of a part: anix-large-00012."""
    return f"{name}-{number:05d}"


def make_part(name: str, number: int, out: Path) -> None:
    """Make part ``number`` of set ``name`` where it is not there yet."""
    plan, part = PLANS[name], part_name(name, number)
    if (out / f"{part}.npz").is_file() and (out / f"{part}.card.json").is_file():
        return
    started, module = time.process_time(), importlib.import_module(f"tools.generate.{plan.module}")
    structures, names = module.large_part(np.random.default_rng([SEED, zlib.crc32(name.encode()), number]), plan.part)
    if not structures:
        raise RuntimeError(f"{part}: no structure came out of it; look at the packages of the generator")
    write_set(
        part, structures, names, out_dir=out, stands_for=f"{plan.stands_for} (pre-training)", seed=SEED,
        how_made=f"Part {number + 1} of {plan.parts}: {' '.join(module.large_part.__doc__.split('.')[0].split())}."
        .replace("``count``", str(plan.part)),
        level_of_theory=plan.level_of_theory,
        software=software_versions("tblite", "rdkit", "chgnet", "ase", "numpy"),
        what_it_is_not=f"Not {plan.stands_for}: other structures, and approximate labels in place of DFT.",
        cpu_seconds=time.process_time() - started,
    )


def generate(out: Path, processes: int = 1, parts: int | None = None) -> list[Outcome]:
    """Make the first ``parts`` (None: all) of the parts that the schedule lists; what became of each."""
    jobs = [(part_name(*key), make_part, (*key, Path(out))) for key in schedule()[:parts]]
    return run_jobs(jobs, processes, "large companion")


def in_tests(out: Path, data_root: Path | None = None) -> dict[str, int]:
    """{set and task: structures of the set in ``out`` that are copies of one of the task's test part}, where
    there are any; turned, wrapped, permuted ones too. Compared are the mini data, and of the published those
    under ``data_root``."""
    whole = {name: load_parts(name, out) for name in PLANS if any(Path(out).glob(f"{name}-*.card.json"))}
    found = {}
    # the twelve targets of QM9 share their structures
    for task in {task.mini_name: task for task in TASKS.values()}.values():
        for data in ("mini", "published"):
            with suppress(FileNotFoundError):
                test = load_task_data(task.id, data, data_root).test
                for name, structures in whole.items():
                    if len(pairs := shared(structures, test)):
                        found[f"{name}, {task.id}, {data}"] = len(set(pairs[:, 0].tolist()))
    return found


def summary(out: Path) -> dict:
    """What is there, set by set: parts, structures, elements, CPU seconds, seed and the hash of every part,
    from the cards."""
    found = {}
    for name, plan in PLANS.items():
        cards = [json.loads(path.read_text()) for path in sorted(Path(out).glob(f"{name}-*.card.json"))]
        elements = sorted({element for card in cards for element in card["counts"]["elements"]})
        found[name] = {
            "parts": len(cards), "of": plan.parts, "structures": sum(card["counts"]["structures"] for card in cards),
            "groups": sum(card["counts"]["groups"] for card in cards), "elements": elements, "seed": SEED,
            "cpu_seconds": round(sum(card["cpu_seconds"] for card in cards), 1),
            "sha256": {card["name"]: card["sha256"] for card in cards},
        }  # fmt: skip
    return found
