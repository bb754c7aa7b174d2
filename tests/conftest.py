"""One thread per test process: repeatable sums, and no fight for the cores."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

torch.set_num_threads(1)

# Files of half a minute and more, the longest first: of several processes none is left with one of them at the end.
LONG = ("notebooks_smoke", "engine_processes", "sweep", "engine_parts", "pool", "variants", "store_writer", "plan",
        "pretraining_both", "precision", "reference", "statistics")  # fmt: skip


def pytest_collection_modifyitems(items) -> None:
    """Under pytest-xdist (``make test``) the long files come first; alone they keep their places."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        order = {f"test_{name}": place for place, name in enumerate(LONG)}
        items.sort(key=lambda item: order.get(item.path.stem, len(LONG)))
