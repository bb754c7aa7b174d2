"""Ten kills at random moments (``python -m tools.kill_test`` makes fifty): the same bits, nothing half-done,
nothing left."""

import os
import shutil

import numpy as np
import pytest

from tools import kill_test

PARTS = {"pretrain": ("records/pretrain/", "work/pretrain/", "work/scale_factors/"),
         "finetune": ("records/", "work/"), "report": ("",)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Undisturbed work: its folder, that of the store, and seconds by kind."""
    top = tmp_path_factory.mktemp("whole")
    seconds = {kind: kill_test.ended(kind, top / kind) for kind in ("prepare", "finetune")}
    kill_test.prepare_folder("report", top / "report", top / "finetune")
    return top, seconds | {"pretrain": seconds["finetune"] / 2, "report": kill_test.ended("report", top / "report")}


@pytest.mark.parametrize("kind, kills",
                         [("prepare", 2), ("pretrain", 2), ("finetune", 1), ("finetune", 2), ("report", 2)])
def test_killed_at_random_it_ends_with_the_same_bits(whole, tmp_path, kind, kills):
    top, seconds = whole
    rng = np.random.default_rng([kills, *kind.encode()])
    moments = [float(rng.uniform(0.1, 0.6)) * seconds[kind] for _ in range(kills)]
    wanted, met = top / ("finetune" if kind == "pretrain" else kind), 0
    while not met:  # where this machine is faster now than it was, it has to be earlier
        folder = tmp_path / f"killed-{moments[0]:.3f}"
        kill_test.prepare_folder(kind, folder, top / "finetune")
        met, wrong = kill_test.trial(kind, folder, wanted, moments, among=PARTS.get(kind, ("",)))
        assert not wrong
        moments = [moment / 2 for moment in moments]


def test_two_runs_at_once_share_the_results(whole, tmp_path):
    (tmp_path / "both").mkdir()
    running = [kill_test.start("finetune", tmp_path / "both") for _ in range(2)]
    for process in running:
        process.join()
    assert [process.exitcode for process in running] == [0, 0]
    assert not kill_test.differences("finetune", tmp_path / "both", whole[0] / "finetune")


def test_a_killed_sweep_ends_with_the_bits_of_the_plain_commands(whole, tmp_path):
    """Killed in a fine-tuning; the clock was set back meanwhile, so that old tables look newer."""
    folder = tmp_path / "killed"
    for part in PARTS["pretrain"]:  # every job imports torch anew, which takes most of the time
        shutil.copytree(whole[0] / "finetune" / part, folder / part)
    assert kill_test.killed("sweep", folder, lambda: list(folder.glob("work/finetune/qm9_mu/*/log.csv")))
    assert not kill_test.alive(folder, 30.0) and not kill_test.halves(folder)
    stale = folder / "tables" / "all_tasks.csv"
    stale.parent.mkdir(exist_ok=True)
    stale.write_text("of before\n")
    os.utime(stale, (4e9, 4e9))
    kill_test.ended("sweep", folder)
    assert not kill_test.differences("sweep", folder, whole[0] / "report", ("records/", "work/", "tables/"))
