"""Where things are. Inputs never depend on the working directory."""

from __future__ import annotations

import os
from pathlib import Path

PACKAGE_DIR = Path(__file__).resolve().parent
MINI_DIR = PACKAGE_DIR / "data" / "mini"
FACTS_DIR = PACKAGE_DIR / "facts"
BACKBONES_DIR = PACKAGE_DIR / "backbones"


def checkout_dir() -> Path | None:
    """The repository's root when the package is run from a checkout, else None (an installed copy)."""
    root = PACKAGE_DIR.parent
    return root if (root / "pyproject.toml").is_file() and (root / "notebooks").is_dir() else None


def results_dir(override: str | Path | None = None) -> Path:
    """Absolute folder of the results: ``override``, else ``results`` of the checkout, else (an installed copy) of the
    working directory; it is not created here."""
    return Path(override).expanduser().resolve() if override else (checkout_dir() or Path.cwd()) / "results"


def shipped_dir(name: str) -> Path:
    """Absolute folder of results that come with a checkout: mini, mini-ablations, published_small, rates, benchmarks.

    Runs only read it (they write to ``results/<profile>``); ``python -m tools.ship`` renews it.
    """
    return results_dir() / "shipped" / name


def data_dirs(override: str | Path | None = None) -> list[Path]:
    """Absolute folders of the published files: those of ``override``, else of the environment's JMP_DATA, several
    joined by ``os.pathsep``; else ``data`` of the checkout (of the working directory for an installed copy).

    Files are looked for in all of them; new ones go into the first. No folder is created here.
    """
    chosen = [part for part in str(override or os.environ.get("JMP_DATA") or "").split(os.pathsep) if part]
    return [Path(part).expanduser().resolve() for part in chosen] or [(checkout_dir() or Path.cwd()) / "data"]


def data_dir(override: str | Path | None = None) -> Path:
    """The first of :func:`data_dirs`, where new files go."""
    return data_dirs(override)[0]


def data_place(override: str | Path | None, *names: str) -> Path:
    """``names`` below the first of :func:`data_dirs` that has it, else below the first."""
    places = [folder.joinpath(*names) for folder in data_dirs(override)]
    return next((place for place in places if place.exists()), places[0])


def data_root(override: str | Path | None = None) -> str:
    """:func:`data_dirs` as one text, as profiles and processes pass it on."""
    return os.pathsep.join(map(str, data_dirs(override)))
