"""Short ways from a molecule to the pre-trained network, for notebooks and the command line."""

from __future__ import annotations

import numpy as np


def from_ase(atoms) -> dict:
    """An ``ase.Atoms`` as a structure (pos Å, cell Å in rows, tags all 2; see :mod:`jmp_lib.keys`)."""
    return {
        "pos": atoms.get_positions().astype(np.float32),
        "atomic_numbers": atoms.get_atomic_numbers().astype(np.int64),
        "cell": np.asarray(atoms.cell.array, np.float64),
        "pbc": np.asarray(atoms.pbc, bool),
        "tags": np.full(len(atoms), 2, np.int64),
        "fixed": np.zeros(len(atoms), bool),
        "id": 0,
    }


def pretrained_model(run, size: str):
    """The pre-training network of ``size`` in evaluation mode, and words that say where its weights are from.

    The weights are those of notebook 02 when they are there, else random ones of the profile's seed.
    """
    from jmp_lib.records import pretrain_record_path, read_record
    from jmp_lib.train.pretrain import new_model
    from jmp_lib.train.weights import load_weights

    model = new_model(run.profile, size)
    words = f"{size} network with random weights (run notebook 02 to pre-train it): its numbers mean nothing"
    try:
        record = read_record(pretrain_record_path(run.results_dir, size))
        model.load_state_dict(load_weights(run.results_dir / record["files"]["weights"]["file"]))
        words = f"{size} network with the weights of notebook 02 ({record['updates']} updates on {', '.join(record['data'])})"
    except FileNotFoundError:
        pass
    return model.eval(), words
