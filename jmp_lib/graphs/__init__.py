"""Structures -> graphs -> batches."""

from .batch import GraphCache, collate
from .build import GraphConfig, build_graphs, graphs_to_arrays

__all__ = ["GraphCache", "GraphConfig", "build_graphs", "collate", "graphs_to_arrays"]
