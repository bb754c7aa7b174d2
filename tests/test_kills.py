"""Ten kills at random moments (``python -m tools.kill_test`` makes fifty): the same bits, nothing half-done, nothing left."""

import numpy as np
import pytest

from tools import kill_test

PARTS = {"pretrain": ("records/pretrain/", "work/pretrain/", "work/scale_factors/"), "finetune": ("records/", "work/"), "report": ("",)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Undisturbed work: its folder, that of the store, and seconds by kind."""
    top = tmp_path_factory.mktemp("whole")
    seconds = {kind: kill_test.ended(kind, top / kind) for kind in ("prepare", "finetune")}
    kill_test.prepare_folder("report", top / "report", top / "finetune")
    return top, seconds | {"pretrain": seconds["finetune"] / 2, "report": kill_test.ended("report", top / "report")}


@pytest.mark.parametrize("kind, kills", [("prepare", 1), ("prepare", 2), ("pretrain", 2), ("finetune", 1), ("finetune", 2), ("report", 1)])
def test_killed_at_random_it_ends_with_the_same_bits(whole, tmp_path, kind, kills):
    top, seconds = whole
    rng = np.random.default_rng([kills, *kind.encode()])
    kill_test.prepare_folder(kind, tmp_path / "killed", top / "finetune")
    moments = [float(rng.uniform(0.1, 0.8)) * seconds[kind] for _ in range(kills)]
    wanted = top / ("finetune" if kind == "pretrain" else kind)
    _, wrong = kill_test.trial(kind, tmp_path / "killed", wanted, moments, among=PARTS.get(kind, ("",)))
    assert not wrong
