"""A run of yours in the place of the shipped results: ``python -m tools.ship mini`` (then ``python -m tools.readme``).

The name is a folder of ``results/``: mini, mini-published, published_small, benchmarks.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from jmp_lib import paths


def ship(name: str) -> Path:
    """Puts the light files of ``results/<name>`` in the place of ``results/shipped/<name>``, and returns that.

    Checkpoints and predictions (``work``) stay out, but for a small pre-trained network (``weights/small``). Measurements
    (``benchmarks``) are taken over one by one.
    Raises FileNotFoundError where there is no such run.
    """
    source, target = paths.results_dir() / name, paths.shipped_dir(name)
    if name == "shipped" or not any(source.rglob("*.json")):
        raise FileNotFoundError(f"{source} holds no results to ship: run `make reproduce PROFILE={name}` first")
    if (source / "records").is_dir():
        shutil.rmtree(target, ignore_errors=True)
    left = shutil.ignore_patterns("work", "comparison.*", "*.failed.ipynb", "*.lock", "lock", "*.tmp", ".*")
    shutil.copytree(source, target, ignore=left, dirs_exist_ok=True)
    weights = [source / "work/pretrain/small" / name for name in ("model.safetensors", "model.json")]
    if weights[0].is_file() and weights[0].stat().st_size < 4_000_000:  # a start for own data, small enough for git
        (target / "weights/small").mkdir(parents=True, exist_ok=True)
        for file in weights:
            shutil.copy(file, target / "weights/small")
    return target


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tools.ship", description=__doc__)
    parser.add_argument("name")
    try:
        print(ship(parser.parse_args().name))
    except OSError as error:
        sys.exit(f"error: {error}")
