"""Structures -> graphs -> batches."""

from .batch import collate
from .build import GraphConfig, build_graphs, graphs_to_arrays
from .cache import GraphCache
from .cost import GraphCost, graph_cost

__all__ = ["GraphCache", "GraphConfig", "GraphCost", "build_graphs", "collate", "graph_cost", "graphs_to_arrays"]
