"""Words for what is not known, and nested mappings: shared by settings, parameters and the data's command line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, valid: Iterable[str]) -> str:
    """Text that names the valid key nearest to ``word``, or all of them when none is near."""
    valid = sorted(valid)
    close = difflib.get_close_matches(str(word), valid, n=1, cutoff=0.6)
    return f"the nearest valid key is '{close[0]}'" if close else f"valid keys are {', '.join(valid)}"


def check_keys(mapping: dict, valid: Iterable[str], where: str) -> None:
    """Raises ``ValueError`` when ``mapping`` is not a dictionary or has a key outside ``valid``."""
    valid = list(valid)
    if not isinstance(mapping, dict):
        raise ValueError(f"{where} must be a mapping with the keys {', '.join(valid)}, not {mapping!r}")
    for key in mapping:
        if key not in valid:
            raise ValueError(f"{where}: unknown key '{key}'; {nearest(key, valid)}")


def merge(base: dict, change: dict) -> dict:
    """A new dictionary: ``base`` with the nested values of ``change`` put over it."""
    merged = dict(base)
    for key, value in change.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged
