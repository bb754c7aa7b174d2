"""Structures -> graphs -> batches."""

import importlib

from .build import GraphConfig, build_graphs, graphs_to_arrays

__all__ = ["AddGraphs", "GraphCache", "GraphConfig", "build_graphs", "collate", "graphs_to_arrays"]
_WITH_TORCH = {"AddGraphs": ".transform", "GraphCache": ".transform", "collate": ".batch"}


def __getattr__(name: str):
    """What needs torch is imported when first asked for: that takes seconds, and settings need GraphConfig alone."""
    if name not in _WITH_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_WITH_TORCH[name], __name__), name)
