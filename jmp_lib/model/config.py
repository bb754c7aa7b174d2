"""Sizes of a GemNet-OC backbone, named as in the official configuration."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

from jmp_lib.parameters import check_keys

# Official fields with the only value that this network implements; they may stand in a configuration.
FIXED = {
    "num_targets": 1, "regress_energy": True, "use_pbc": True, "scale_backprop_forces": False,
    "rbf": {"name": "gaussian"}, "rbf_spherical": None, "envelope": {"name": "polynomial", "exponent": 5},
    "cbf": {"name": "spherical_harmonics"}, "sbf": {"name": "legendre_outer"}, "extensive": True,
    "forces_coupled": False, "activation": "scaled_silu", "quad_interaction": True,
    "atom_edge_interaction": True, "edge_atom_interaction": True, "atom_interaction": True,
    "scale_basis": False, "qint_tags": [1, 2], "otf_graph": False, "learnable_rbf": False,
    "learnable_rbf_stds": False, "unique_basis_per_layer": False, "dropout": None,
}  # fmt: skip
# Official fields that say how the network is used; read elsewhere (heads, training).
USAGE = ("regress_forces", "edge_dropout")


@dataclass(frozen=True)
class BackboneConfig:
    """One backbone. The defaults are JMP-S (GN-OC-S): 44,131,328 parameters with four energy and four force heads; the
    comments give the symbol of the specification."""

    emb_size_atom: int = 256  # A: atom embedding h
    emb_size_edge: int = 512  # M: edge embedding m
    emb_size_trip_in: int = 64  # Ti: triplet width before the sum
    emb_size_trip_out: int = 64  # To: and after it
    emb_size_quad_in: int = 32  # Qi
    emb_size_quad_out: int = 32  # Qo
    emb_size_aint_in: int = 64  # Pi: atom-atom interaction
    emb_size_aint_out: int = 64  # Po
    emb_size_rbf: int = 16  # Er: projected radial basis
    emb_size_cbf: int = 16  # Ec: projected circular (triplet) basis
    emb_size_sbf: int = 32  # Es: projected spherical (quadruplet) basis
    num_radial: int = 128  # K: Gaussians on [0, 1]
    num_spherical: int = 7  # L: Legendre polynomials
    num_blocks: int = 4  # B: interaction blocks
    num_before_skip: int = 2
    num_after_skip: int = 2
    num_concat: int = 1
    num_atom: int = 3
    num_output_afteratom: int = 3
    num_atom_emb_layers: int = 2
    num_global_out_layers: int = 2
    num_elements: int = 120
    absolute_rbf_cutoff: float = 12.0  # Å; every distance is divided by it, whatever the graph cutoff
    direct_forces: bool = True  # keep the edge (force) branch of the output blocks

    @classmethod
    def large(cls) -> BackboneConfig:
        """JMP-L: 234,267,648 parameters with four energy and four force heads."""
        return cls(emb_size_edge=1024, emb_size_trip_out=128, emb_size_quad_in=64, emb_size_rbf=32,
                   emb_size_sbf=64, num_blocks=6, num_concat=4)  # fmt: skip

    @classmethod
    def from_dict(cls, values: dict) -> BackboneConfig:
        """Of a ``model.json`` or an official configuration; ``ValueError``: an unknown field,
        or a variant of another network."""
        known = [f.name for f in fields(cls)]
        check_keys(values, [*known, *FIXED, *USAGE], "backbone")
        for key in values.keys() & FIXED:
            if values[key] != FIXED[key]:
                raise ValueError(f"backbone: {key} = {values[key]!r} is not implemented; only {FIXED[key]!r} is")
        return cls(**{key: values[key] for key in known if key in values})

    def to_dict(self) -> dict:
        return asdict(self)
