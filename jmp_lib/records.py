"""Records: one JSON file per run that says what was computed, from what, with which settings.

    results/<profile>/records/pretrain/<size>.json
    results/<profile>/records/finetune/<task id>/<arm>.json        (<arm>.fold<k>.json for folds k > 0)
    results/<profile>/work/...                                     weights, predictions, checkpoints (not in git)

Every table is computed from records.  The fingerprint is a hash of everything that decides the numbers;
a finished record with the same fingerprint, whose files are there and unaltered, is not run again.
"""

from __future__ import annotations

import hashlib
import json
import platform
import resource
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np

from jmp_lib.files import file_sha256, reading, write_atomically
from jmp_lib.paths import PACKAGE_DIR

SCHEMA = 1  # raised when the code changes in a way that changes numbers or the layout of records


def pretrain_record_path(results_dir: Path, size: str) -> Path:
    """Where the record of a pre-training lies; size: small or large."""
    return Path(results_dir) / "records" / "pretrain" / f"{size}.json"


def finetune_record_path(results_dir: Path, task_id: str, arm: str, fold: int = 0) -> Path:
    """Where the record of a fine-tuning lies."""
    return Path(results_dir) / "records" / "finetune" / task_id / f"{arm}{f'.fold{fold}' * bool(fold)}.json"


def work_dir(record_path: Path, results_dir: Path) -> Path:
    """Folder of the large files of a run (weights, predictions, checkpoint), under ``work``."""
    relative = Path(record_path).relative_to(results_dir).with_suffix("")
    return Path(results_dir) / "work" / Path(*(part for part in relative.parts if part != "records"))


def fingerprint(values: dict) -> str:
    """SHA-256 (hex) of plain nested values together with the schema number."""
    text = json.dumps({"schema": SCHEMA, **values}, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def read_record(path: Path) -> dict:
    """A record; raises ``FileNotFoundError`` or ``ValueError`` with one sentence."""
    with reading(path, "delete it if it is there, and run the notebook or command that makes it"):
        record = json.loads(Path(path).read_text())
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        raise ValueError(f"{path} is not a record of schema {SCHEMA}; delete it and run again")
    return record


def finished_record(path: Path, results_dir: Path, wanted: str | None = None) -> dict | None:
    """The record at ``path`` when it has the fingerprint ``wanted`` (None: any) and its files are there unaltered."""
    with suppress(FileNotFoundError, ValueError):
        record = read_record(path)
        if wanted in (None, record.get("fingerprint")) and all(
                file_sha256(Path(results_dir) / entry["file"]) == entry["sha256"]
                for entry in record.get("files", {}).values()):
            return record
    return None


def file_entry(path: Path, results_dir: Path) -> dict:
    """{file, sha256} of a file, its path relative to the results folder."""
    return {"file": Path(path).relative_to(results_dir).as_posix(), "sha256": file_sha256(path)}


def save_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Atomically write plain arrays as npz; the same arrays always give the same bytes."""
    with write_atomically(path, "wb") as stream:
        np.savez_compressed(stream, **arrays)


def packed_errors(errors: np.ndarray, rows: np.ndarray) -> dict:
    """Errors and weights of the test structures (S,2) as a record keeps them: in the order of their ``rows`` of the
    set, four digits of each error; weights null where they are equal."""
    mae, weight = errors[np.argsort(rows, kind="stable")].T
    return {"mae": [float(f"{e:.4g}") for e in mae], "weight": weight.astype(int).tolist() if np.ptp(weight) else None}


def unpacked_errors(record: dict) -> np.ndarray | None:
    """(S,2) of a record, in its unit; None where it does not hold the errors of its test structures."""
    found = record.get("test_errors")
    return found and np.column_stack([found["mae"], found["weight"] or np.ones(len(found["mae"]))])


def git_commit() -> str | None:
    """Commit of the checkout that the package lies in, with '+' when files of the package differ; None outside git."""
    def git(*arguments):
        return subprocess.run(["git", "-C", str(PACKAGE_DIR), *arguments], capture_output=True, text=True, timeout=20)

    with suppress(OSError, subprocess.TimeoutExpired):
        head, changes = git("rev-parse", "HEAD"), git("status", "--porcelain", "--untracked-files=no", "--", ".")
        return head.stdout.strip() + ("+" if changes.stdout.strip() else "") if head.returncode == 0 else None
    return None


def versions() -> dict[str, str]:
    """Versions that a number may depend on."""
    import torch

    return {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__,
            "platform": f"{platform.system()} {platform.machine()}"}


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far, in MB (10^6 bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS, KiB elsewhere
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def device_name(device) -> str:
    """Readable name of a torch device."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({platform.machine()})"


def load_pretraining_records(results_dir: Path) -> list[dict]:
    """The pre-training records under ``results_dir``, small before large."""
    paths = [pretrain_record_path(results_dir, size) for size in ("small", "large")]
    return [read_record(path) for path in paths if path.exists()]


def load_predictions(results_dir: Path, record: dict) -> tuple[np.ndarray, np.ndarray]:
    """(true, predicted) test values of a fine-tuning record, in its unit: (S,) or, for forces, (ΣN,3)."""
    path = Path(results_dir) / record["predictions"]["file"]
    with reading(path, "run this task again for its predictions (they are not kept in git)"):
        if file_sha256(path) != record["predictions"]["sha256"]:
            raise ValueError("the sha256 differs from that of its record")
        with np.load(path, allow_pickle=False) as arrays:
            return arrays["true"], arrays["predicted"]
