"""Strict parameters of a notebook: papermill only warns of a name that the notebook does not know, and the run would
use the default. So the second cell of every notebook compares the names that were set with the declared ones, and
checks every value."""

from __future__ import annotations

import ast
import os
import types
from contextlib import suppress

from jmp_lib.strict import nearest

# name -> (kind, meaning). None or "" always means "as the profile says".
KINDS = {
    "profile": ("text", "smoke, mini, one_gpu, paper, or the path of a YAML file"),
    "sizes": ("list", "model sizes to pre-train: small, large"),
    "arms": ("list", "arms to fine-tune: GN-OC-S, GN-OC-L, JMP-S, JMP-L"),
    "targets": ("list", "targets of the family, for instance mu, zpve"),
    "molecules": ("list", "molecules of the family, for instance ethanol, aspirin"),
    "tasks": ("list", "tasks of the family, for instance jdft2d, phonons"),
    "seed": ("int", "random seed"),
    "workers": ("int", "single-threaded worker processes"),
    "lr": ("float", "learning rate"),
    "max_steps": ("int", "largest number of optimiser steps of a run"),
    "max_eval": ("int", "at most so many validation, and so many test, structures of a task"),
    "structures_per_set": ("int", "structures drawn from each set"),
    "perplexity": ("float", "perplexity of t-SNE"),
    "data": ("text", "mini (ships with the package) or published (files under data_root)"),
    "data_root": ("text", "folder that holds the published files, several joined as in PATH"),
    "source": ("source", "extended XYZ, ASE database, folder of structure files, or a pandas table"),
    "labels_csv": ("text", "CSV with the labels of a folder"),
    "properties": ("list", "labels to learn: band_gap, or energy, forces"),
    "units": ("list", "unit of each property, in that order"),
    "reduction": ("text", "mean, sum (a property that grows with size) or max over atoms"),
    "split": ("text", "random, group, composition or given"),
    "group_key": ("text", "label that says which structures belong together"),
    "checkpoint": ("text", "folder of a pre-trained or fine-tuned network, or a name that jmp_lib.load knows: mini-small, mini-large"),
    "updates": ("int", "optimiser steps of each run"),
    "seeds": ("int", "how many seeds"),
    "results_dir": ("text", "folder for records, tables and figures"),
}

WANTED = {"text": "text", "list": "a list of names, one text with commas, or a JSON or YAML list", "float": "a number",
          "int": "a whole number of at least 1", "source": "a path or a pandas table"}


def literal_assignments(source: str) -> list[str] | None:
    """Names assigned in a cell that holds nothing but ``name = literal``; else None."""
    names = []
    try:
        for statement in ast.parse(source).body:
            if not isinstance(statement, (ast.Assign, ast.AnnAssign)):
                return None
            (target,) = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            ast.literal_eval(statement.value)
            names.append(target.id)
    except (SyntaxError, AttributeError, ValueError, TypeError):  # no code, several targets or no name, no literal
        return None
    return names or None


def assigned_names(namespace: dict) -> list[str]:
    """Names that the parameters cells set; a mapping that is not ``globals()`` of a notebook is the parameters
    themselves.

    IPython keeps the source of every cell that ran in ``In``: so the parameters cell, papermill's injected one, and one
    that the reader edited and ran again are told from all other variables.
    """
    if "In" not in namespace:
        return [n for n, v in namespace.items() if not (n.startswith("_") or isinstance(v, types.ModuleType) or callable(v))]
    names, started = [], False
    for cell in namespace["In"]:
        found = literal_assignments(cell)
        injected = cell.lstrip().startswith("# Parameters")
        if found and (not started or injected or "profile" in found):
            names += [n for n in found if n not in names]
        started = started or "start(" in cell
    return names


def collect(namespace: dict, declared: tuple[str, ...]) -> dict:
    """The checked parameters ``{name: value}``; empty ones are None. ValueError: not declared, missing, of the wrong
    kind."""
    for name in declared:
        if name not in KINDS:
            raise ValueError(f"{name!r} is not a parameter of this workbook; {nearest(name, KINDS)}")
    for name in assigned_names(namespace):
        if name not in declared:
            raise ValueError(f"unknown parameter {name!r}; {nearest(name, declared)} "
                             f"(parameters of this notebook: {', '.join(declared)})")
    missing = [name for name in declared if name not in namespace]
    if missing:
        raise ValueError(f"parameter {missing[0]!r} is not set: run the parameters cell first")
    return {name: convert(name, namespace[name]) for name in declared}


def convert(name: str, value):
    """``value`` in the type of parameter ``name``; None and "" become None. Raises ValueError for a value of another kind."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    kind, meaning = KINDS[name]
    if kind in ("text", "source") and isinstance(value, os.PathLike):
        return str(value)
    text, number = isinstance(value, str), isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind == "source" and (text or hasattr(value, "iterrows")):
        return value
    if kind == "text" and text:
        return value.strip()
    if kind == "list":
        items = _listed(value) if text else value
        if isinstance(items, (list, tuple)) and all(isinstance(i, str) for i in items):
            return [i.strip() for i in items if i.strip()] or None
    if kind == "float" and number:
        return float(value)
    if kind == "int" and number and value == int(value) and (value >= 1 or name == "seed"):
        return int(value)
    trap = "the text " if text else ""
    mend = " (YAML reads 5e-5 as text: write 5.0e-5, without quotes)" if text else ""
    raise ValueError(f"parameter {name!r} must be {WANTED[kind]} ({meaning}); got {trap}{value!r}{mend}")


def _listed(text: str):
    """Items of a text with commas, or of a JSON or YAML list, as papermill's ``-p`` hands it on."""
    if text.lstrip().startswith(("[", "- ")):
        import yaml

        with suppress(yaml.YAMLError):
            return yaml.safe_load(text)
    return text.split(",")


def choose(wanted: list[str] | None, known: list[str], what: str) -> list[str]:
    """``wanted`` (None = all) as entries of ``known``, in the order of ``known``; ValueError naming the nearest for an
    unknown one."""
    if wanted is None:
        return list(known)
    lowered = {k.lower(): k for k in known}
    for name in wanted:
        if name.lower() not in lowered:
            raise ValueError(f"unknown {what} {name!r}; {nearest(name, known)}")
    keep = {lowered[name.lower()] for name in wanted}
    return [k for k in known if k in keep]
