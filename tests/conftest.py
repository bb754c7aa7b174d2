"""One thread per test process: repeatable sums, and no fight for the cores."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

torch.set_num_threads(1)

# Files of half a minute and more, the longest first: of several processes none is left with one of them at the end.
LONG = ("notebooks_smoke", "kills", "engine_processes", "fuzz", "pool", "engine_parts", "variants", "plan",
        "store_writer", "sweep", "hygiene", "pretraining_both", "reference", "statistics")  # fmt: skip


def pytest_collection_modifyitems(items) -> None:
    """Under pytest-xdist (``make test``) the long files come first; alone they keep their places."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        order = {f"test_{name}": place for place, name in enumerate(LONG)}
        items.sort(key=lambda item: order.get(item.path.stem, len(LONG)))


@pytest.fixture
def toy(monkeypatch):
    """Trainings read the small made-up sets of ``toy_sets``."""
    from jmp_lib.train import finetuning, joint_sets
    from toy_sets import toy_pretraining, toy_task

    monkeypatch.setattr(joint_sets, "load_pretraining_data", toy_pretraining)
    monkeypatch.setattr(finetuning, "load_task_data", toy_task)
    joint_sets._read.cache_clear()
    yield
    joint_sets._read.cache_clear()
