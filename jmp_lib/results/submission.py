"""MatBench submissions from records on published data, made and checked with the ``matbench`` package (0.6).

    write_submissions("results/paper-published", data_root)

Folds are recorded with ``MatbenchTask.record``; the tasks of an arm that have all five make
``matbench/<arm>/results.json.gz``, the file of numbers that the MatBench site takes. The package's own ``to_file``
writes plain JSON under that name; here it is gzip, and the package validates it before it is written.
"""

from __future__ import annotations

import gzip
import json
import logging
from pathlib import Path

import numpy as np
import pandas as pd

from jmp_lib import facts
from jmp_lib.data import matbench as files
from jmp_lib.data import splits
from jmp_lib.data.tasks import get_task
from jmp_lib.files import write_atomically
from jmp_lib.records import load_predictions
from jmp_lib.results.values import finetune_records, is_comparable

PARAMETERS = ("profile", "arm", "seed", "updates", "n_train", "n_val", "best_val",
              "commit", "fingerprint", "data_sha256")


def write_submissions(results_dir: str | Path, data_root: str | Path | None, arms=facts.ARMS) -> pd.DataFrame:
    """Records the MatBench folds in ``results_dir`` arm by arm and writes what is complete; one row per fold that ran.

    data_root: folder of the published files. MAE as the package computes it, in the unit of the released file.
    Records that may not go in are left out, with the reason in ``why not``.
    """
    results_dir, rows = Path(results_dir), []
    records = [record for record in finetune_records(results_dir / "records") if record["family"] == "matbench"]
    for arm in arms:
        tasks = {}
        for record in (record for record in records if record["arm"] == arm):
            task, fold, mae, why = get_task(record["task"]), record["fold"], float("nan"), ""
            try:
                values = _values(results_dir, record).tolist()
                made = tasks[task.suffix] = tasks.get(task.suffix) or _new_task(task.suffix, data_root or "data")
                made.record(fold, values, params={n: record[n] for n in PARAMETERS if record.get(n) is not None})
                mae = made.results[f"fold_{fold}"]["scores"]["mae"]
            except (FileNotFoundError, ValueError) as error:
                why = str(error)
            rows.append({"arm": arm, "task": task.suffix, "fold": fold, "recorded": not why, "MAE": mae,
                         "unit": task.label_unit, "why not": why})
        whole = {name: made for name, made in tasks.items() if made.all_folds_recorded}
        _write_arm(results_dir / "matbench" / arm / "results.json.gz", arm, whole)
    return pd.DataFrame(rows, columns=["arm", "task", "fold", "recorded", "MAE", "unit", "why not"])


def _values(results_dir: Path, record: dict) -> np.ndarray:
    """Predictions in the released unit, in the order of the test part. Raises what says why the record is left out."""
    if record.get("data_kind") != "published":
        raise ValueError("it ran on mini data, which never go into a submission")
    if not is_comparable(record):
        raise ValueError(f"numbers of the {record['profile']} profile mean nothing")
    task = get_task(record["task"])
    test = splits.matbench(task.n_total, record["fold"]).test
    if record["n_test"] != len(test):
        raise ValueError(f"it was tested on {record['n_test']} of {len(test)} test structures "
                         "(max_test, or a part of the file)")
    predicted = load_predictions(results_dir, record)[1]
    with np.load(results_dir / record["predictions"]["file"], allow_pickle=False) as arrays:
        if not np.array_equal(arrays["ids"], test):
            raise ValueError("its test structures are not those of the official fold")
    return predicted / task.print_factor


def _new_task(name: str, data_root: str | Path):
    """The package's task with the targets of the local file (it would download them itself)."""
    data, _ = files.load(name, data_root)
    if len(data) != files.n_total(name):
        raise ValueError(f"only a part of the file of {name} is at hand")
    made = _package().MatbenchTask(f"matbench_{name}", autoload=False)
    index = [files.official_id(name, int(row)) for row in data.ids]
    made.df = pd.DataFrame({"structure": None, made.metadata.target: data.scalars["y"]}, index=index)
    return made


def _write_arm(path: Path, arm: str, tasks: dict) -> None:
    """The submission of one arm; one that is no longer covered by records is removed."""
    if not tasks:
        return path.unlink(missing_ok=True)
    bench = _package().MatbenchBenchmark(subset=[f"matbench_{name}" for name in tasks])
    bench.tasks_map.update({f"matbench_{name}": task for name, task in tasks.items()})
    bench.add_metadata({"algorithm": f"{arm} (JMP workbook)"})
    if errors := bench.validate():
        raise ValueError("; ".join(errors))
    with write_atomically(path, "wb") as stream:  # the same content gives the same bytes
        stream.write(gzip.compress(json.dumps(bench.as_dict()).encode(), mtime=0))


def _package():
    """The module ``matbench.bench``, without its messages."""
    import matbench.bench

    logging.getLogger("matbench").setLevel(logging.ERROR)
    return matbench.bench
