"""The sweep under Snakemake: which jobs there are, and that a killed one ends with the same numbers."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jmp_lib import sweep
from jmp_lib.records import load_records
from jmp_lib.results.tables import write_tables
from jmp_lib.settings import PROFILE_DIR

ROOT = Path(__file__).parents[1]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
TIMES = ("wall_time_s", "train_time_s", "peak_memory_mb", "commit", "history", "waiting_s", "waiting_share")


def dry_run(folder: Path, *config: str) -> dict[str, int]:
    """Rule -> number of jobs that ``snakemake -n`` lists."""
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "-n",
        "--quiet",
        "rules",
        "--snakefile",
        str(ROOT / "Snakefile"),
        "--directory",
        str(folder),
        "--config",
        *config,
        f"results_dir={folder / 'results'}",
    ]
    done = subprocess.run(command, env=ENVIRONMENT, check=False, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", done.stdout + done.stderr, re.MULTILINE)}


def test_the_paper_has_288_finetunings(tmp_path):
    assert dry_run(tmp_path, "profile=paper") == {
        "finetune": 288,
        "pretrain": 2,
        "scale_factors": 2,
        "tables": 1,
        "total": 293,
    }


def test_other_profiles_list_their_own(tmp_path):
    assert dry_run(tmp_path, "profile=mini")["finetune"] == 160
    assert dry_run(tmp_path, "profile=smoke", "arms=GN-OC-S,JMP-S") == {
        "finetune": 12,
        "pretrain": 1,
        "scale_factors": 1,
        "tables": 1,
        "total": 15,
    }


def test_arms_from_scratch_need_scale_factors_only(tmp_path):
    found = sweep.read({"profile": "paper", "tasks": "matbench_phonons", "results_dir": str(tmp_path)})
    assert {job.fold for job in found.jobs.values()} == set(range(5)) and len(found.jobs) == 20
    for record, job in found.jobs.items():
        (needed,) = found.needs(record)
        assert Path(needed).parent.name == ("pretrain" if job.arm.startswith("JMP") else "scale_factors")


def test_given_weights_need_no_pretraining(tmp_path):
    assert dry_run(tmp_path, "profile=paper:official") == {"finetune": 288, "tables": 1, "total": 289}


def test_tasks_without_data_are_left_out_with_words(tmp_path):
    with pytest.raises(ValueError, match="qm9"):
        sweep.read({"profile": "paper", "tasks": "qm9_mu", "data_root": str(tmp_path)})
    if not os.environ.get("JMP_DATA"):
        pytest.skip("JMP_DATA is not set")
    found = sweep.read({"profile": "paper", "data_root": os.environ["JMP_DATA"]})
    assert "rmd17_ethanol" in {job.task for job in found.jobs.values()} and "md22_dha" in found.left_out
    assert "left out: md22_dha: " in sweep.words(found)


@pytest.mark.parametrize(
    "config, message",
    [
        ({"profil": "mini"}, "'profil'.*'profile'"),
        ({"tasks": "qm9_muu"}, "mu"),
        ({"arms": "JMP-M"}, "JMP"),
        ({"seed": "one"}, "seed"),
    ],
)
def test_bad_settings_are_named(config, message):
    with pytest.raises(ValueError, match=message):
        sweep.read(config)


def test_what_other_settings_or_data_made_is_run_again(tmp_path):
    """Also where only the pre-training has changed: of it the arms from scratch need nothing."""
    from jmp_lib.workbook import start

    names = {"profile": "smoke", "tasks": "qm9_mu", "arms": "GN-OC-S,JMP-S", "workers": 1, "results_dir": str(tmp_path)}
    start(names, tuple(names)).finetune_all()
    config = {key: value for key, value in names.items() if key != "workers"}
    assert sweep.outdated(sweep.read(config)) == []
    text = (PROFILE_DIR / "smoke.yaml").read_text()
    (tmp_path / "smoke.yaml").write_text(text.replace("ema_decay: 0.99", "ema_decay: 0.9"))
    changed = config | {"profile": str(tmp_path / "smoke.yaml")}
    found = [Path(path).relative_to(tmp_path / "records").as_posix() for path in sweep.outdated(sweep.read(changed))]
    assert found == ["pretrain/small.json", "finetune/qm9_mu/JMP-S.json"]
    (tmp_path / "work" / "finetune" / "qm9_mu" / "GN-OC-S" / "predictions.npz").unlink()
    assert [Path(path).name for path in sweep.outdated(sweep.read(config))] == ["GN-OC-S.json"]


def start_sweep(results: Path) -> subprocess.Popen:
    command = [
        sys.executable,
        "-m",
        "jmp_lib",
        "sweep",
        "--profile",
        "smoke",
        "--tasks",
        "qm9_mu",
        "--arms",
        "GN-OC-S,JMP-S",
        "--cores",
        "1",
        "--results-dir",
        str(results),
    ]
    return subprocess.Popen(
        command, env=ENVIRONMENT, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def kill_when(process: subprocess.Popen, there) -> None:
    """SIGKILL to the whole process group as soon as ``there()`` is true."""
    until = time.monotonic() + 120
    while not there():
        assert process.poll() is None, f"ended before it could be killed: {process.stderr.read()}"
        assert time.monotonic() < until
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def numbers(results: Path) -> dict[str, str]:
    """Record -> everything in it that is no time, as text; and the table."""
    kept = {f"{r['task']} {r['arm']}": {k: v for k, v in r.items() if k not in TIMES} for r in load_records(results)}
    text = {name: json.dumps(record, sort_keys=True) for name, record in kept.items()}
    table = (results / "tables" / "table2.csv").read_text(), (results / "tables" / "gains_by_task.csv").read_text()
    return text | {"tables": table}


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_two_kills_change_nothing(tmp_path):
    """Killed in the pre-training and in a fine-tuning; the third start ends with the numbers of an unbroken run."""
    from jmp_lib.workbook import start

    names = {
        "profile": "smoke",
        "tasks": "qm9_mu",
        "arms": "GN-OC-S,JMP-S",
        "workers": 1,
        "results_dir": str(tmp_path / "whole"),
    }
    start(names, tuple(names)).finetune_all()
    write_tables(tmp_path / "whole")

    killed = tmp_path / "killed"
    kill_when(start_sweep(killed), (killed / "work/pretrain/small/checkpoint.pt").exists)
    assert not list(killed.glob("records/pretrain/*.json"))
    kill_when(start_sweep(killed), lambda: list(killed.glob("work/finetune/qm9_mu/*/checkpoint.pt")))
    assert not (killed / "tables/all_tasks.csv").exists()
    last = start_sweep(killed)
    assert last.wait(timeout=120) == 0, last.stderr.read()
    assert numbers(killed) == numbers(tmp_path / "whole")

    # a notebook of the same results finds everything finished
    before = {path: path.read_text() for path in killed.glob("records/**/*.json")}
    start(names | {"results_dir": str(killed)}, tuple(names)).finetune_all()
    assert before == {path: path.read_text() for path in killed.glob("records/**/*.json")}
