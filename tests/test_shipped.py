"""What the repository ships and what a run writes lie apart; a run ends beside the shipped one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from jmp_lib import paths, reproduce
from tools.ship import ship

ROOT = Path(__file__).resolve().parents[1]


def test_git_ignores_what_a_run_writes_and_keeps_what_is_shipped():
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")

    def ignored(name: str) -> bool:
        return subprocess.run(["git", "check-ignore", "-q", name], cwd=ROOT, check=False).returncode == 0

    assert all(map(ignored, ("results/mini/tables/all_tasks.csv", "results/new/report.html",
                             "results/benchmarks/step.json")))
    assert not any(map(ignored, ("results/shipped/mini/tables/all_tasks.csv", "results/shipped/benchmarks/new.json")))
    tracked = subprocess.run(["git", "ls-files", "results"], cwd=ROOT, capture_output=True,
                             text=True, check=True).stdout.split()
    assert tracked and all(name.startswith("results/shipped/") for name in tracked)


def test_a_run_ends_with_the_comparison(tmp_path, monkeypatch, capsys):
    shutil.copytree(paths.shipped_dir("mini") / "records", tmp_path / "records")
    monkeypatch.setattr(reproduce, "notebook_paths", list)
    assert reproduce.main("mini", None, str(tmp_path)) == 0
    printed = capsys.readouterr().out
    assert "This run beside the shipped one:" in printed and printed.index("shipped one") < printed.index("Open:")
    assert ((tmp_path / "tables" / "comparison.csv").is_file()
            and not list(paths.shipped_dir("mini").rglob("comparison.*")))


def test_profiles_without_shipped_results_end_without(tmp_path, monkeypatch, capsys):
    shutil.copytree(paths.shipped_dir("mini") / "records", tmp_path / "records")
    monkeypatch.setattr(reproduce, "notebook_paths", list)
    assert reproduce.main("one_gpu", None, str(tmp_path)) == 0 and "beside" not in capsys.readouterr().out


def test_a_notebook_without_records_names_the_shipped_ones(tmp_path, capsys):
    from jmp_lib.workbook import start

    parameters = {"profile": "smoke", "results_dir": str(tmp_path / "mini")}
    start(parameters, tuple(parameters))
    assert "run that comes with the checkout is in results/shipped/mini" in capsys.readouterr().out


def test_ship_takes_the_light_files(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "results_dir", lambda override=None: tmp_path)
    for name in ("mini/records/finetune/qm9_mu/JMP-S.json", "mini/work/pretrain/small/model.json", "mini/tables/a.csv",
                 "mini/tables/comparison.csv", "mini/variants/v/work/a.json", "mini/notebooks/03.failed.ipynb",
                 "shipped/mini/tables/old.csv", "benchmarks/step.json", "shipped/benchmarks/feed.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    (tmp_path / "mini/notebooks/04.ipynb").write_text(f'"results in {tmp_path}/mini/tables"')
    assert [ship(name) for name in ("mini", "benchmarks")] == [tmp_path / "shipped/mini",
                                                               tmp_path / "shipped/benchmarks"]
    shipped = sorted(p.relative_to(tmp_path / "shipped").as_posix()
                     for p in (tmp_path / "shipped").rglob("*") if p.is_file())
    assert shipped == ["benchmarks/feed.json", "benchmarks/step.json", "mini/notebooks/04.ipynb",
                       "mini/records/finetune/qm9_mu/JMP-S.json", "mini/tables/a.csv"]
    assert (tmp_path / "shipped/mini/notebooks/04.ipynb").read_text() == '"results in results/mini/tables"'
    with pytest.raises(FileNotFoundError, match="run `make reproduce PROFILE=nothing` first"):
        ship("nothing")
