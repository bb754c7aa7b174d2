"""The command ``predict``: structures in, extended XYZ with predictions out.  Light to import; torch comes when it runs."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

PREFIX = "jmp_"


def main(model: str, source: str, output: str, batch_size: int = 32, device: str = "cpu", dataset: str | None = None,
         any_element: bool = False) -> int:
    """The command ``predict``: extended XYZ with predictions, written when complete."""
    from ase.io import write

    from jmp_lib.own.read import read_file
    from jmp_lib.predict import predictions

    target = Path(output)
    if target.suffix not in (".extxyz", ".xyz"):
        raise ValueError(f"{target}: predictions are written as extended XYZ, so the name must end in .extxyz")
    frames = read_file(Path(source))
    found = predictions(model, frames, batch_size=batch_size, device=device, dataset=dataset,
                        check_elements=not any_element, progress=True)
    for atoms, values in zip(frames, found):
        for name, value in values.items():
            (atoms.arrays if np.ndim(value) == 2 else atoms.info)[PREFIX + name] = value
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    try:
        write(temporary, frames, format="extxyz")
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    print(f"{len(frames)} structures, {target}")
    return 0


def add_command(add) -> None:
    """Adds ``predict`` to the command line; ``add(name, function, words)`` returns its parser."""
    command = add("predict", lambda a: main(a.model, a.structures, a.output, a.batch_size, a.device, a.dataset, a.any_element),
                  "predict with a trained network; structures in, extended XYZ out")
    command.add_argument("model", help="folder with model.json and model.safetensors")
    command.add_argument("structures", help="extended XYZ, ASE database, or any file that ASE reads")
    command.add_argument("-o", "--output", required=True, help="extended XYZ file to write")
    command.add_argument("--batch-size", type=int, default=32)
    command.add_argument("--device", choices=("cpu", "cuda", "auto"), default="cpu")
    command.add_argument("--dataset", help="heads of a pre-trained network: oc20, oc22, ani1x, transition1x")
    command.add_argument("--any-element", action="store_true", help="also elements that fine-tuning has not seen")
