"""Write one mini data set and its card: `<name>.npz` and `<name>.card.json`.

Both files are written to a temporary name and moved into place, so a reader never sees half a file.
The npz holds plain arrays only (no pickle) and its bytes depend on the arrays alone, so the same arrays give
the same sha256.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import json
import platform
import zipfile
from pathlib import Path

import numpy as np

from jmp_lib.files import write_atomically

MINI_DIR = Path(__file__).resolve().parents[2] / "jmp_lib" / "data" / "mini"

#: units of the keys that every set may have; scalar targets are given to `write_set` by the caller
BASE_UNITS = {"pos": "Å", "cell": "Å", "energy": "eV", "forces": "eV/Å"}
_PER_ATOM = ("pos", "numbers", "tags", "fixed", "forces")
_DTYPES = {
    "natoms": np.int32, "pos": np.float32, "numbers": np.uint8, "group": np.int32, "cell": np.float32,
    "tags": np.uint8, "fixed": np.bool_, "forces": np.float32,
}
_SYMBOLS = (
    "X H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb Sr Y Zr "
    "Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt "
    "Au Hg Tl Pb Bi"
).split()


def software_versions(*packages: str) -> dict[str, str]:
    """Versions of the named installed distributions, and of Python itself."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def npz_bytes(arrays: dict[str, np.ndarray]) -> bytes:
    """The bytes of a compressed npz of `arrays`, without time stamps (the same arrays give the same bytes)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for key in sorted(arrays):
            member = io.BytesIO()
            np.lib.format.write_array(member, np.ascontiguousarray(arrays[key]), allow_pickle=False)
            info = zipfile.ZipInfo(f"{key}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, member.getvalue())
    return buffer.getvalue()


def pack(structures: list[dict], group_names: list[str]) -> dict[str, np.ndarray]:
    """Concatenate structures into the arrays of a mini npz.

    Every structure is a dict with `pos` (N,3) Å, `numbers` (N,), `group` int, and optionally `cell` (3,3) Å,
    `tags` (N,), `fixed` (N,), `forces` (N,3) eV/Å and any scalar target (float). All must have the same keys.
    """
    if not structures:
        raise ValueError("no structures to pack: the generator made none, see its log")
    keys = set(structures[0])
    for row, structure in enumerate(structures):
        if set(structure) != keys:
            raise ValueError(f"structure {row} has the keys {sorted(structure)}, the first one {sorted(keys)}")
    arrays = {"natoms": np.array([len(s["numbers"]) for s in structures], np.int32)}
    for key in sorted(keys):
        if key in _PER_ATOM:
            arrays[key] = np.concatenate([np.asarray(s[key]) for s in structures]).astype(_DTYPES[key])
        elif key in _DTYPES:
            arrays[key] = np.stack([np.asarray(s[key]) for s in structures]).astype(_DTYPES[key])
        else:
            arrays[key] = np.array([s[key] for s in structures], np.float64)
    if arrays["group"].min() < 0 or arrays["group"].max() >= len(group_names):
        raise ValueError(f"group index outside the {len(group_names)} group names")
    arrays["group_names"] = np.array(group_names, dtype=np.str_)
    for key, values in arrays.items():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise ValueError(f"{key} holds values that are not finite")
    return arrays


def statistics(arrays: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """mean, std, min and max of every label (forces: over all components)."""
    natoms = arrays["natoms"]
    table = {"natoms": natoms}
    for key, values in arrays.items():
        if values.dtype.kind == "f" and key not in ("pos", "cell"):
            table[key] = values.astype(np.float64)
    return {
        key: {stat: float(f"{getattr(np, stat)(values):.8g}") for stat in ("mean", "std", "min", "max")}
        for key, values in table.items()
    }


def write_set(
    name: str, structures: list[dict], group_names: list[str], *, stands_for: str, how_made: str,
    level_of_theory: str, software: dict[str, str], seed: int, what_it_is_not: str, cpu_seconds: float,
    units: dict[str, str] | None = None, extra: dict | None = None, out_dir: Path | None = None,
) -> dict:
    """Write `<name>.npz` and its card; returns the card.

    `units` names the unit of every scalar target beyond `BASE_UNITS`; a target without a unit raises ValueError.
    `extra` is merged into the card (for facts that only one set has).
    """
    arrays = pack(structures, group_names)
    known = {**BASE_UNITS, **(units or {})}
    labelled = [k for k, v in arrays.items() if v.dtype.kind == "f"]
    missing = [key for key in labelled if key not in known]
    if missing:
        raise ValueError(f"{name}: no unit given for {', '.join(missing)}")
    payload = npz_bytes(arrays)
    card = {
        "name": name, "stands_for": stands_for, "how_made": how_made, "level_of_theory": level_of_theory,
        "software": software, "seed": seed,
        "counts": {
            "structures": len(arrays["natoms"]), "atoms": int(arrays["natoms"].sum()), "groups": len(group_names),
            "elements": {
                _SYMBOLS[z]: int(n) for z, n in zip(*np.unique(arrays["numbers"], return_counts=True), strict=True)
            },
        },
        "units": {key: known[key] for key in labelled}, "statistics": statistics(arrays),
        "what_it_is_not": what_it_is_not, "cpu_seconds": round(float(cpu_seconds), 1),
        "command": f"python -m tools.generate {name}", **(extra or {}),
        "bytes": len(payload), "sha256": hashlib.sha256(payload).hexdigest(),
    }
    folder = Path(out_dir) if out_dir is not None else MINI_DIR
    with write_atomically(folder / f"{name}.npz", "wb") as stream:
        stream.write(payload)
    with write_atomically(folder / f"{name}.card.json") as stream:
        stream.write(json.dumps(card, indent=2, ensure_ascii=False) + "\n")
    return card
