"""An ablation beyond the paper's recipe: bulk crystals as one more pre-training set, against the recipe alone.

    python -m tools.bulk_crystals FILE.xyz ... [--workers 2]  # goes on where it was stopped; MatBench in JMP_DATA
    python -m tools.ship bulk-crystals                        # to results/shipped, which notebook 15 shows

The paper pre-trains on molecules and catalysts; bulk crystals come only in fine-tuning. Here the small network of
profile published_small is pre-trained twice with as many updates: on the sets of the profile, and on those and the
crystals of the files (extended XYZ with energies in eV and forces in eV/Å). Both, and a network from scratch, are
fine-tuned on every task of MatBench and QMOF at hand. A crystal whose reduced formula occurs in a MatBench file at
hand, in whichever part, is left out.

``results/bulk-crystals`` holds the records of the recipe and of GN-OC-S, ``variants/with-bulk`` in it those of the
other network, and ``crystals.json`` the files, their hashes, and how many crystals were left out.
"""

from __future__ import annotations

import argparse
import sys
from functools import lru_cache
from pathlib import Path

import numpy as np

from jmp_lib import paths
from jmp_lib.data.pretraining import split
from jmp_lib.data.structures import to_set
from jmp_lib.data.tasks import TASKS, load_published, why_not
from jmp_lib.files import file_sha256, write_json
from jmp_lib.own.data import formula, read_own
from jmp_lib.pool import run_jobs
from jmp_lib.results.variants import ablations, mean_gains, variant_values
from jmp_lib.settings import PretrainingSet, Profile, load_profile
from jmp_lib.train.finetuning import finetune
from jmp_lib.train.joint_sets import JointSet
from jmp_lib.train.pretraining import pretrain

UPDATES = 1200
KEY, VARIANT = "bulk", "with-bulk"


def profile_of(start: Path | None = None) -> Profile:
    """published_small with a short pre-training of its own, or one that starts from the network in ``start``."""
    schedule = {"cosine_until": f"{UPDATES} updates", "stop_at": f"{UPDATES} updates",
                "validate_every": f"{UPDATES // 2} updates"}
    profile = load_profile("published_small", pretrained={"small": start and str(start), "large": None},
                           data_root=paths.data_root(), pretraining={"schedule": schedule})  # fmt: skip
    return profile.model_copy(update={"graphs": profile.graphs | {KEY: profile.graphs["matbench"]}})


def tasks_at_hand(root: str, *names: str) -> list[str]:
    """Tasks of these families whose published files are there."""
    return [name for name, task in TASKS.items() if task.family in names and why_not(task, root) is None]


@lru_cache(maxsize=1)
def crystals(files: tuple[str, ...], root: str) -> tuple[JointSet, dict]:
    """The crystals that may be trained on, a tenth of them (whole formulas) for validation; and what there was."""
    known = {formula(s["atomic_numbers"]) for name in tasks_at_hand(root, "matbench")
             for s in load_published(TASKS[name], root)[0]}
    read = [s for file in files
            for s in read_own(file, ["energy", "forces"], ["eV", "eV/Å"], name=Path(file).stem).structures]
    named = [{**s.to_dict(), "group": formula(s["atomic_numbers"])} for s in read]
    kept = [{**s, "id": number} for number, s in enumerate(s for s in named if s["group"] not in known)]
    whole = to_set("bulk-crystals", kept, where=", ".join(files))
    train, val = (whole.subset(rows) for rows in split(KEY, whole))
    about = {"files": {Path(file).name: file_sha256(Path(file)) for file in files},
             "read": len(read), "left_out": len(read) - len(kept),
             "why": "the reduced formula occurs in a MatBench file", "train": len(train), "val": len(val),
             "formulas": len(whole.group_names), "elements": len(np.unique(whole.atomic_numbers))}  # fmt: skip
    return JointSet(KEY, train, val, PretrainingSet(energy_loss_scale=5.0), published=True), about


def pretrained(files: tuple[str, ...], out: Path) -> dict:
    """The record of the pre-training in ``out``: with the crystals of ``files``, without any where there are none."""
    profile = profile_of()
    return pretrain(profile, "small", out, False, [crystals(files, profile.data_root)[0]] if files else [])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.bulk_crystals", description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", help="crystals with energies (eV) and forces (eV/Å), extended XYZ")
    parser.add_argument("--out", type=Path, default=paths.results_dir() / "bulk-crystals", help="folder of records")
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args(arguments)
    files, out = tuple(given.files), given.out.resolve()
    other, tasks = out / "variants" / VARIANT, tasks_at_hand(paths.data_root(), "matbench", "qmof")
    write_json(out / "crystals.json", crystals(files, paths.data_root())[1])
    done = run_jobs([("the recipe", pretrained, ((), out)), ("with bulk crystals", pretrained, (files, other))],
                    given.workers, "pre-training")
    if not any(outcome.error for outcome in done):
        start, changed = (profile_of(folder / "work" / "pretrain" / "small") for folder in (out, other))
        done = run_jobs([(f"{task} {arm} in {folder.name}", finetune, (profile, task, arm, folder, False))
                         for task in tasks for profile, arm, folder in (
                             (start, "JMP-S", out), (changed, "JMP-S", other), (start, "GN-OC-S", out))],
                        given.workers, "fine-tuning")  # fmt: skip
        print(mean_gains(ablations(variant_values(out))).to_string(index=False))
    failed = [f"{outcome.label}: {outcome.error}" for outcome in done if outcome.error]
    print("\n".join(failed), file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
