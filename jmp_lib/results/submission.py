"""MatBench submissions from records on published data, made and checked with the ``matbench`` package (0.6).

    write_submissions("results/paper-published", data_root)

Every fold whose predictions are at hand is recorded with ``MatbenchTask.record``. Folds of unfinished tasks are kept in
``matbench/<arm>/recorded_folds.json.gz``; finished tasks make the folder ``matbench/<arm>/submission`` that the
MatBench site takes: ``results.json.gz``, ``info.json`` and the notebook. The package's own ``to_file`` would write plain
JSON under the name ``.gz``; here it is gzip, and the file is read back and validated by the package before it counts.
"""

from __future__ import annotations

import gzip
import json
import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from jmp_lib import facts, paths
from jmp_lib.data import matbench as files
from jmp_lib.data import splits
from jmp_lib.data.tasks import get_task
from jmp_lib.files import write_atomically
from jmp_lib.records import load_predictions
from jmp_lib.results.values import finetune_records, is_comparable

COLUMNS = ["arm", "task", "fold", "recorded", "MAE", "unit", "why not"]
BIBTEX = ("@inproceedings{shoghi2024jmp, title={From Molecules to Materials: Pre-training Large Generalizable Models for "
          "Atomic Property Prediction}, author={Shoghi, Nima and Kolluru, Adeesh and Kitchin, John R. and Ulissi, "
          "Zachary W. and Zitnick, C. Lawrence and Wood, Brandon M.}, booktitle={ICLR}, year={2024}}")


def write_submissions(results_dir: str | Path, data_root: str | Path | None, arms=None) -> pd.DataFrame:
    """Records the MatBench folds in ``results_dir`` arm by arm and writes what is complete; one row per fold that ran.

    data_root: folder of the published files, which the folds were run on. arms: None for all. Columns: ``COLUMNS``;
    MAE as the package computes it, in the unit of the released file. Records on mini data, of the smoke profile, on
    a part of the test structures or without their predictions are left out, with the reason in ``why not``.
    """
    results_dir, rows = Path(results_dir), []
    found = [r for r in finetune_records(results_dir / "records") if r["family"] == "matbench"]
    for arm in [arm for arm in facts.ARMS if arms is None or arm in arms]:
        tasks = {}
        for record in [r for r in found if r["arm"] == arm]:
            task = get_task(record["task"]).suffix
            reason, values = _values(results_dir, record, data_root)
            if not reason:
                tasks.setdefault(task, _new_task(task, data_root)).record(
                    record["fold"], values.tolist(), params=_parameters(record))
            rows.append({"arm": arm, "task": task, "fold": record["fold"], "recorded": not reason, "why not": reason,
                         "unit": get_task(record["task"]).label_unit,
                         "MAE": float("nan") if reason else tasks[task].results[f"fold_{record['fold']}"]["scores"]["mae"]})
        _write_arm(results_dir / "matbench" / arm, arm, tasks)
    return pd.DataFrame(rows, columns=COLUMNS)


def load_submission(path: str | Path):
    """The ``MatbenchBenchmark`` of a ``results.json.gz``, validated by the package.

    Raises ``FileNotFoundError``, or ``ValueError`` for a file that is not gzip or that the package refuses.
    """
    bench = _package()
    try:
        with gzip.open(path, "rt", encoding="utf-8") as stream:
            content = json.load(stream)
        benchmark = bench.MatbenchBenchmark.from_dict(content)
        errors = benchmark.validate()
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no submission {path}") from None
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a valid MatBench result: {error}") from None
    if errors:
        raise ValueError(f"{path} is not a valid MatBench result: {'; '.join(errors)}")
    return benchmark


def _values(results_dir: Path, record: dict, data_root) -> tuple[str, np.ndarray | None]:
    """(why the record is left out, None), or ("", predictions in the released unit, in the order of the test part)."""
    if record.get("data_kind") != "published":
        return "it ran on mini data, which never go into a submission", None
    if not is_comparable(record):
        return f"numbers of the {record['profile']} profile mean nothing", None
    task = get_task(record["task"])
    total = files.n_total(task.suffix)
    test = splits.matbench(total, record["fold"]).test
    if record["n_test"] != len(test):
        return f"it was tested on {record['n_test']} of {len(test)} test structures (max_test, or a part of the file)", None
    try:
        if len(files.load(task, data_root or "data")[0]) != total:
            return f"only a part of the file of {task.suffix} is at hand", None
        predicted = load_predictions(results_dir, record)[1]
    except (FileNotFoundError, ValueError) as error:
        return str(error), None
    with np.load(results_dir / record["predictions"]["file"], allow_pickle=False) as arrays:
        if not np.array_equal(arrays["ids"], test):
            return "its test structures are not those of the official fold", None
    if not np.isfinite(predicted).all():
        return "some of its predictions are not finite numbers", None
    return "", predicted / task.print_factor


def _new_task(task: str, data_root):
    """The package's task with the targets of the local file (it would download them itself)."""
    data, _ = files.load(get_task(f"matbench_{task}"), data_root or "data")
    made = _package().MatbenchTask(f"matbench_{task}", autoload=False)
    index = [files.official_id(task, int(row)) for row in data.ids]
    made.df = pd.DataFrame({"structure": None, made.metadata.target: data.scalars["y"]}, index=index)
    return made


def _parameters(record: dict) -> dict:
    """What the fold's entry says of the run: plain numbers and words."""
    known = ("profile", "arm", "seed", "updates", "n_train", "n_val", "best_val", "commit", "fingerprint", "data_sha256")
    return {name: record[name] for name in known if record.get(name) is not None}


def _write_arm(folder: Path, arm: str, tasks: dict) -> None:
    """Files of one arm; what is no longer covered by records is removed."""
    finished = {name: task for name, task in tasks.items() if task.all_folds_recorded}
    unfinished = {name: task for name, task in tasks.items() if name not in finished}
    recorded, submission = folder / "recorded_folds.json.gz", folder / "submission"
    shutil.rmtree(submission, ignore_errors=True)
    recorded.unlink(missing_ok=True)
    if unfinished:
        _write_gzip(recorded, _benchmark(arm, unfinished).as_dict())
    if finished:
        making = folder / f".submission.{os.getpid()}.tmp"
        shutil.rmtree(making, ignore_errors=True)
        _write_gzip(making / "results.json.gz", _benchmark(arm, finished).as_dict())
        load_submission(making / "results.json.gz")
        (making / "info.json").write_text(json.dumps(info(arm, sorted(finished)), indent=1) + "\n")
        root = paths.checkout_dir()
        if root:
            shutil.copyfile(root / "notebooks" / "07_matbench.ipynb", making / "notebook.ipynb")
        os.replace(making, submission)


def info(arm: str, tasks: list[str]) -> dict:
    """The ``info.json`` of a submission: what MatBench shows beside the numbers. Authors are the one who submits."""
    start = "pre-trained backbone of this workbook" if arm.startswith("JMP") else "random weights"
    return {
        "authors": "FILL IN before submitting",
        "algorithm": f"{arm} (JMP workbook)",
        "algorithm_long": f"GemNet-OC fine-tuned from {start}; tasks: {', '.join(tasks)}. An independent implementation "
                          "of the network and recipe of JMP (arXiv:2310.16802), not the authors' models.",
        "bibtex_refs": BIBTEX,
        "notes": "Settings of every fold are in the field parameters of results.json.gz. The notebook makes all of it.",
        "requirements": {"python": _requirements()},
    }


def _requirements() -> list[str]:
    """Locked versions (``name==version``) of a checkout; an installed copy names itself."""
    root = paths.checkout_dir()
    if root is None:
        return ["jmp-workbook"]
    lines = [line.strip() for line in (root / "requirements.lock").read_text().splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def _benchmark(arm: str, tasks: dict):
    """A ``MatbenchBenchmark`` of the given tasks, in the order of the package's list."""
    bench = _package().MatbenchBenchmark(subset=[f"matbench_{name}" for name in tasks])
    for name, task in tasks.items():
        bench.tasks_map[f"matbench_{name}"] = task
    bench.add_metadata({"algorithm": f"{arm} (JMP workbook)"})
    return bench


def _package():
    """The module ``matbench.bench``, without its messages."""
    import matbench.bench

    logging.getLogger("matbench").setLevel(logging.ERROR)
    return matbench.bench


def _write_gzip(path: Path, content: dict) -> None:
    """JSON as real gzip, atomically; the same content gives the same bytes."""
    with write_atomically(path, "wb") as stream:
        stream.write(gzip.compress(json.dumps(content).encode(), mtime=0))
