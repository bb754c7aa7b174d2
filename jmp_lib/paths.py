"""Where things are. Inputs never depend on the working directory."""

from __future__ import annotations

import os
from pathlib import Path

PACKAGE_DIR = Path(__file__).resolve().parent
MINI_DIR = PACKAGE_DIR / "data" / "mini"
FACTS_DIR = PACKAGE_DIR / "facts"
PROFILES_DIR = PACKAGE_DIR / "profiles"
BACKBONES_DIR = PACKAGE_DIR / "backbones"


def checkout_dir() -> Path | None:
    """The repository's root when the package is run from a checkout, else None (an installed copy)."""
    root = PACKAGE_DIR.parent
    return root if (root / "pyproject.toml").is_file() and (root / "notebooks").is_dir() else None


def results_dir(override: str | Path | None = None) -> Path:
    """Absolute folder of the results: ``override``, else ``results`` of the checkout, else of the working directory.

    Only results of an installed copy land in the working directory; the folder is not created here.
    """
    if override:
        return Path(override).expanduser().resolve()
    return (checkout_dir() or Path.cwd()) / "results"


def shipped_dir(name: str) -> Path:
    """Absolute folder of the reference results that come with a checkout: mini, mini-published, published_small, benchmarks.

    Runs only read it (they write to ``results/<profile>``); ``python -m tools.ship`` renews it.
    """
    return results_dir() / "shipped" / name


def data_dir(override: str | Path | None = None) -> Path:
    """Absolute folder of the published files: ``override``, else the environment's JMP_DATA, else ``data`` of the checkout.

    An installed copy uses ``data`` of the working directory; the folder is not created here.
    """
    chosen = override or os.environ.get("JMP_DATA")
    return Path(chosen).expanduser().resolve() if chosen else (checkout_dir() or Path.cwd()) / "data"
