"""The sweep under Snakemake: which jobs there are. (Killed ones: test_kills.)"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from jmp_lib import sweep
from jmp_lib.settings import PROFILE_DIR

ROOT = Path(__file__).parents[1]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


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
    assert "left out: md22_dha: " in found.words


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
