"""MatBench submissions: recorded by the matbench package, complete ones gzip and valid, mini data never in them."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest

from jmp_lib.data import matbench, splits
from jmp_lib.files import write_json
from jmp_lib.records import file_entry, finetune_record_path, save_arrays
from jmp_lib.results.submission import write_submissions

ROWS = 1265


@pytest.fixture(scope="module")
def data_root(tmp_path_factory) -> Path:
    """A whole phonons file of one-atom crystals whose target is the row number."""
    folder = tmp_path_factory.mktemp("matbench")
    crystal = {"lattice": {"matrix": (3.0 * np.eye(3)).tolist()},
               "sites": [{"species": [{"element": "Cu", "occu": 1}], "xyz": [0.0, 0.0, 0.0]}]}
    content = {"index": list(range(ROWS)), "columns": ["structure", "last phdos peak"],
               "data": [[crystal, float(row)] for row in range(ROWS)]}
    with gzip.open(folder / "matbench_phonons.json.gz", "wt") as stream:
        json.dump(content, stream)
    return folder


def add_fold(results: Path, fold: int, truth=lambda rows: rows.astype(float), **changes) -> None:
    """A record of JMP-S on a fold, whose predictions are one above the truth."""
    rows = splits.matbench(ROWS, fold).test
    path = finetune_record_path(results, "matbench_phonons", "JMP-S", fold)
    npz = results / "work" / f"{fold}.npz"
    save_arrays(npz, true=truth(rows), predicted=truth(rows) + 1.0, ids=rows)
    write_json(path, {"schema": 1, "kind": "finetune", "task": "matbench_phonons", "family": "matbench", "arm": "JMP-S",
                      "fold": fold, "metric": "MAE", "value": 1.0, "unit": "cm^-1", "data": "MatBench phonons",
                      "data_kind": "published", "profile": "mini", "n_train": 910, "n_test": len(rows),
                      "predictions": file_entry(npz, results)} | changes)


def load_submission(path: Path):
    from matbench.bench import MatbenchBenchmark

    return MatbenchBenchmark.from_dict(json.loads(gzip.decompress(path.read_bytes())))


def test_all_folds_make_a_submission_that_the_package_reads_back(data_root, tmp_path):
    for fold in range(5):
        add_fold(tmp_path, fold)
    table = write_submissions(tmp_path, data_root)
    assert table["recorded"].all() and table["MAE"].tolist() == pytest.approx([1.0] * 5)
    path = tmp_path / "matbench" / "JMP-S" / "results.json.gz"
    assert path.read_bytes()[:2] == b"\x1f\x8b"
    benchmark = load_submission(path)
    assert benchmark.is_recorded and benchmark.is_valid
    assert benchmark.scores["matbench_phonons"]["mae"]["mean"] == pytest.approx(1.0)
    first = f"mb-phonons-{splits.matbench(ROWS, 0).test[0] + 1:04d}"
    data = benchmark.matbench_phonons.results["fold_0"]["data"]
    assert next(iter(data)) == first and data[first] == splits.matbench(ROWS, 0).test[0] + 1.0


def test_some_folds_are_recorded_and_make_no_submission(data_root, tmp_path):
    for fold in range(5):
        add_fold(tmp_path, fold)
    write_submissions(tmp_path, data_root)
    finetune_record_path(tmp_path, "matbench_phonons", "JMP-S", 2).unlink()
    assert write_submissions(tmp_path, data_root)["recorded"].tolist() == [True] * 4
    assert list((tmp_path / "matbench" / "JMP-S").iterdir()) == [], "the one of before is gone"


@pytest.mark.parametrize(("changes", "why"), [
    ({"data_kind": "generated"}, "mini data, which never go into a submission"),
    ({"profile": "smoke"}, "smoke profile"),
    ({"n_test": 100}, "100 of 253 test structures"),
    ({"predictions": {"file": "work/none.npz", "sha256": ""}}, "missing"),
])
def test_what_must_not_go_in_is_left_out_with_the_reason(changes, why, data_root, tmp_path):
    for fold in range(5):
        add_fold(tmp_path, fold, **(changes if fold == 2 else {}))
    table = write_submissions(tmp_path, data_root)
    assert table["recorded"].tolist() == [True, True, False, True, True] and why in table["why not"][2]
    assert not (tmp_path / "matbench" / "JMP-S" / "results.json.gz").exists()


@pytest.mark.skipif("JMP_DATA" not in os.environ, reason="JMP_DATA does not name a folder with the published files")
def test_published_phonons(tmp_path):
    data, _ = matbench.load("phonons", os.environ["JMP_DATA"])
    for fold in range(5):
        add_fold(tmp_path, fold, truth=lambda rows: data.scalars["y"][rows])
    table = write_submissions(tmp_path, os.environ["JMP_DATA"])
    assert table["MAE"].tolist() == pytest.approx([1.0] * 5)
    benchmark = load_submission(tmp_path / "matbench" / "JMP-S" / "results.json.gz")
    assert benchmark.is_valid and benchmark.scores["matbench_phonons"]["mae"]["std"] == pytest.approx(0.0, abs=1e-9)
