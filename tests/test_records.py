"""Records: fingerprints, atomic files, what counts as finished."""

import json
import subprocess

import numpy as np
import pytest

from jmp_lib.files import file_sha256, write_json
from jmp_lib import records


def make_run(folder, fingerprint="f"):
    """A finished record with a predictions file."""
    path = records.finetune_record_path(folder, "qm9_mu", "JMP-S")
    predictions = records.work_dir(path, folder) / "predictions.npz"
    records.save_arrays(predictions, true=np.array([1.0, 2.0]), predicted=np.array([1.5, 2.0]))
    entry = records.file_entry(predictions, folder)
    write_json(path, {"schema": records.SCHEMA, "kind": "finetune", "fingerprint": fingerprint, "task": "qm9_mu",
                              "predictions": entry, "files": {"predictions": entry}})
    return path, predictions


def test_paths(tmp_path):
    assert records.finetune_record_path(tmp_path, "qm9_mu", "JMP-S").relative_to(tmp_path).as_posix() == \
        "records/finetune/qm9_mu/JMP-S.json"
    folded = records.finetune_record_path(tmp_path, "matbench_phonons", "GN-OC-L", fold=2)
    assert folded.name == "GN-OC-L.fold2.json"
    assert (records.work_dir(folded, tmp_path).relative_to(tmp_path).as_posix()
            == "work/finetune/matbench_phonons/GN-OC-L.fold2")


def test_fingerprint_sees_every_value_and_no_order():
    base = {"a": 1, "b": {"c": [1.0, 2.0]}}
    assert records.fingerprint(base) == records.fingerprint({"b": {"c": [1.0, 2.0]}, "a": 1})
    assert records.fingerprint(base) != records.fingerprint({"a": 1, "b": {"c": [1.0, 2.0000001]}})
    assert len(records.fingerprint(base)) == 64


def test_fingerprint_changes_with_the_schema(monkeypatch):
    before = records.fingerprint({"a": 1})
    monkeypatch.setattr(records, "SCHEMA", records.SCHEMA + 1)
    assert records.fingerprint({"a": 1}) != before


def test_finished_only_with_its_files(tmp_path):
    path, predictions = make_run(tmp_path)
    assert records.finished_record(path, tmp_path, "f")["task"] == "qm9_mu"
    assert records.finished_record(path, tmp_path, "other settings") is None
    predictions.write_bytes(predictions.read_bytes() + b"x")
    assert records.finished_record(path, tmp_path, "f") is None
    predictions.unlink()
    assert records.finished_record(path, tmp_path, "f") is None
    assert records.finished_record(tmp_path / "none.json", tmp_path, "f") is None


def test_predictions_are_checked(tmp_path):
    path, predictions = make_run(tmp_path)
    true, predicted = records.load_predictions(tmp_path, records.read_record(path))
    assert true.tolist() == [1.0, 2.0] and predicted.tolist() == [1.5, 2.0]
    records.save_arrays(predictions, true=np.array([1.0, 2.0]), predicted=np.array([1.0, 2.0]))
    with pytest.raises(ValueError, match="sha256 differs"):
        records.load_predictions(tmp_path, records.read_record(path))
    predictions.unlink()
    with pytest.raises(FileNotFoundError, match="run this task again"):
        records.load_predictions(tmp_path, records.read_record(path))


def test_same_arrays_same_bytes(tmp_path):
    for name in ("a.npz", "b.npz"):
        records.save_arrays(tmp_path / name, x=np.arange(5.0), y=np.ones((2, 3)))
    assert file_sha256(tmp_path / "a.npz") == file_sha256(tmp_path / "b.npz")


def test_json_is_plain_and_atomic(tmp_path):
    path = tmp_path / "deep" / "record.json"
    write_json(path, {"value": np.float32(0.5), "bad": float("nan"), "list": (1, np.int64(2)), "text": "Å"})
    assert json.loads(path.read_text()) == {"value": 0.5, "bad": None, "list": [1, 2], "text": "Å"}
    assert [p.name for p in path.parent.iterdir()] == ["record.json"]

    class Unwritable:
        pass

    with pytest.raises(AttributeError):
        write_json(path, {"value": Unwritable()})
    assert json.loads(path.read_text())["value"] == 0.5  # the old one is whole


def test_damaged_records_are_named(tmp_path):
    path = tmp_path / "r.json"
    with pytest.raises(FileNotFoundError, match="is missing"):
        records.read_record(path)
    path.write_text('{"schema": ')
    with pytest.raises(ValueError, match="r.json cannot be read"):
        records.read_record(path)
    path.write_text('{"schema": 0}')
    with pytest.raises(ValueError, match="schema"):
        records.read_record(path)


def test_load_pretraining_records(tmp_path):
    assert records.load_pretraining_records(tmp_path) == []
    for size in ("large", "small"):
        write_json(records.pretrain_record_path(tmp_path, size), {"schema": records.SCHEMA, "size": size})
    assert [r["size"] for r in records.load_pretraining_records(tmp_path)] == ["small", "large"]


def test_machine_facts():
    assert records.versions()["torch"] and records.peak_memory_mb() > 10


def test_only_changes_of_the_package_mark_a_commit(tmp_path, monkeypatch):
    def git(*arguments):
        subprocess.run(["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b.c", *arguments],
                       check=True, capture_output=True)

    (tmp_path / "package").mkdir()
    for name in ("package/a.py", "notebook.ipynb"):
        (tmp_path / name).write_text("1")
    monkeypatch.setattr(records, "PACKAGE_DIR", tmp_path / "package")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert records.git_commit() is None
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "one")
    commit = records.git_commit()
    assert len(commit) == 40
    (tmp_path / "notebook.ipynb").write_text("saved")
    assert records.git_commit() == commit
    (tmp_path / "package/a.py").write_text("2")
    assert records.git_commit() == commit + "+"
