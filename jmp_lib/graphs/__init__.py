"""Structures -> graphs -> batches."""

from .batch import collate
from .build import GraphConfig, build_graphs, graphs_to_arrays
from .cache import GraphCache

__all__ = ["GraphCache", "GraphConfig", "build_graphs", "collate", "graphs_to_arrays"]
