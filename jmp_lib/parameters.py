"""Parameters of the notebooks and the command line. Papermill only warns of a name that a notebook does not know, and
the run would use the default: so the second cell of every notebook compares the names that were set with the declared
ones, and checks every value."""

from __future__ import annotations

import ast
import difflib
import os
import types
from collections.abc import Iterable

# name -> (kind, meaning). None or "" always means "as the profile says".
KINDS = {
    "profile": ("text", "smoke, mini, published_small, one_gpu, paper, or the path of a YAML file"),
    "sizes": ("list", "model sizes to pre-train: small, large (default both)"),
    "arms": ("list", "arms to fine-tune: GN-OC-S, GN-OC-L, JMP-S, JMP-L (default all)"),
    "targets": ("list", "targets of the family, for instance mu, zpve"),
    "molecules": ("list", "molecules of the family, for instance ethanol, aspirin"),
    "tasks": ("list", "tasks, for instance jdft2d, phonons, or qm9_mu, rmd17_ethanol (default those of the profile)"),
    "seed": ("int", "random seed (else the profile's)"),
    "workers": ("int", "single-threaded worker processes (else the profile's)"),
    "lr": ("float", "learning rate"),
    "max_steps": ("int", "at most so many updates per run"),
    "max_eval": ("int", "at most so many validation, and so many test, structures of a task"),
    "structures_per_set": ("int", "structures drawn from each set"),
    "perplexity": ("float", "perplexity of t-SNE"),
    "data": ("text", "mini (ships with the package) or published (files under data_root)"),
    "data_root": ("text", "folder of the published files, several joined as in PATH"),
    "source": ("source", "extended XYZ, ASE database, folder of structure files, or a pandas table"),
    "labels_csv": ("text", "CSV with the labels of a folder"),
    "properties": ("list", "labels to learn: band_gap, or energy, forces"),
    "units": ("list", "unit of each property, in that order"),
    "reduction": ("text", "mean, sum (a property that grows with size) or max over atoms"),
    "split": ("text", "random, group, composition or given"),
    "group_key": ("text", "label that says which structures belong together"),
    "checkpoint": ("text", "folder of a trained network, or a name that jmp_lib.load knows: mini-small, mini-large"),
    "updates": ("int", "optimiser steps of each run"),
    "seeds": ("int", "how many seeds"),
    "results_dir": ("text", "folder of records, tables and figures (default results/<profile>)"),
}

WANTED = {"text": "text", "list": "a list of names, or one text with commas", "float": "a number",
          "int": "a whole number of at least 1", "source": "a path or a pandas table"}


def names_set(cell: str) -> list[str]:
    """Names that a cell sets, if it is one of parameters: papermill's, or one that begins with a profile, and nothing
    in it but ``name = literal``."""
    names = []
    try:
        for statement in ast.parse(cell).body:
            (target,) = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            ast.literal_eval(statement.value)
            names.append(target.id)
    except (SyntaxError, AttributeError, ValueError, TypeError):  # no code, no assignment to one name, no literal
        return []
    return names if cell.lstrip().startswith("# Parameters") or names[:1] == ["profile"] else []


def assigned_names(namespace: dict) -> list[str]:
    """Names that the parameters cells set, whose sources IPython keeps in ``In``; a mapping that is not ``globals()``
    of a notebook is the parameters themselves."""
    if "In" in namespace:
        return list(dict.fromkeys(name for cell in namespace["In"] for name in names_set(cell)))
    return [n for n, v in namespace.items()
            if not (n.startswith("_") or isinstance(v, types.ModuleType) or callable(v))]


def collect(namespace: dict, declared: tuple[str, ...]) -> dict:
    """The checked parameters ``{name: value}``; empty ones are None. ValueError: not declared, missing, of the wrong
    kind."""
    for name in assigned_names(namespace):
        if name not in declared:
            raise ValueError(f"unknown parameter {name!r}; {nearest(name, declared)} "
                             f"(parameters of this notebook: {', '.join(declared)})")
    if missing := [name for name in declared if name not in namespace]:
        raise ValueError(f"parameter {missing[0]!r} is not set: run the parameters cell first")
    return {name: convert(name, namespace[name]) for name in declared}


def convert(name: str, value):
    """``value`` in the type of parameter ``name``; None and "" become None. Raises ValueError for a
    value of another kind."""
    kind, meaning = KINDS[name]
    value = str(value) if isinstance(value, os.PathLike) else value
    text, number = isinstance(value, str), isinstance(value, (int, float)) and not isinstance(value, bool)
    if value is None or text and not value.strip():
        return None
    if kind == "source" and (text or hasattr(value, "iterrows")):
        return value
    if kind == "text" and text:
        return value.strip()
    if kind == "list":
        items = value.strip("[] ").split(",") if text else value  # papermill's -p hands a list on as a text
        if isinstance(items, (list, tuple)) and all(isinstance(item, str) for item in items):
            return [item.strip(" '\"") for item in items if item.strip(" '\"")] or None
    if kind == "float" and number:
        return float(value)
    if kind == "int" and number and value == int(value) and (value >= 1 or name == "seed"):
        return int(value)
    got = f"the text {value!r} (YAML reads 5e-5 as text: write 5.0e-5, without quotes)" if text else repr(value)
    raise ValueError(f"parameter {name!r} must be {WANTED[kind]} ({meaning}); got {got}")


def choose(wanted: list[str] | None, known: list[str], what: str) -> list[str]:
    """``wanted`` (None = all) as entries of ``known``, in the order of ``known``; ValueError naming the nearest for an
    unknown one."""
    lowered = [name.lower() for name in known]
    for name in wanted or ():
        if name.lower() not in lowered:
            raise ValueError(f"unknown {what} {name!r}; {nearest(name, known)}")
    return [name for name in known if wanted is None or name.lower() in map(str.lower, wanted)]


# --- words for what is not known, and nested mappings: of settings and the data's command line, too


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
