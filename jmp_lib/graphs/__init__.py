"""Structures -> graphs -> batches. What needs torch is imported when first asked for, since that takes seconds."""

import importlib

from .config import GraphConfig

__all__ = ["AddGraphs", "GraphCache", "GraphConfig", "build_graphs", "collate", "graphs_to_arrays"]
_MODULE_OF = {"AddGraphs": "transform", "GraphCache": "transform", "build_graphs": "build", "collate": "batch",
              "graphs_to_arrays": "build"}  # fmt: skip


def __getattr__(name: str):
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
