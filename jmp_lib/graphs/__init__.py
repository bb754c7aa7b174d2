"""Structures -> graphs -> batches. What needs torch is imported when first asked for, since that takes seconds."""

from __future__ import annotations

from dataclasses import dataclass

from jmp_lib import lazily

__all__ = ["AddGraphs", "GraphCache", "GraphConfig", "build_graphs", "collate", "graphs_to_arrays"]
__getattr__ = lazily(__name__, {"AddGraphs": "build", "GraphCache": "build", "build_graphs": "build",
                                "graphs_to_arrays": "build", "collate": "batch"})


@dataclass(frozen=True)
class GraphConfig:
    """How graphs are cut.

    cutoff: Å, the same for all four graphs. max_neighbors: n; the limits per target atom are
    main n, a2ee2a ⌊20n/30⌋, qint ⌊8n/30⌋, a2a ⌊1000n/30⌋. periodic: search images of the cell.
    reduce_above: ((atoms, n), …) replaces n in larger structures (MatBench, QMOF).
    """

    cutoff: float = 12.0
    max_neighbors: int = 30
    periodic: bool = True
    qint_tags: tuple[int, ...] = (1, 2)
    reduce_above: tuple[tuple[int, int], ...] = ()

    @classmethod
    def from_dict(cls, values: dict) -> GraphConfig:
        """Of the plain values in a ``model.json`` or a record."""
        pairs = tuple(tuple(pair) for pair in values.get("reduce_above", ()))
        tags = {"qint_tags": tuple(values["qint_tags"])} if "qint_tags" in values else {}
        return cls(**{**values, **tags, "reduce_above": pairs})

    def limits(self, natoms: int = 0) -> dict[str, int]:
        """Neighbour limit of each graph for a structure of ``natoms`` atoms."""
        n = self.max_neighbors
        for threshold, reduced in sorted(self.reduce_above):
            if natoms > threshold:
                n = reduced
        return {"main": n, "a2ee2a": 20 * n // 30, "qint": 8 * n // 30, "a2a": 1000 * n // 30}
