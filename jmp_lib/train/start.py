"""Given pre-trained weights as the start of fine-tunings: the official ones, or a folder of somebody's pre-training.

    pretrained: {small: official, large: /weights/my-large}       # in a profile; sizes left out are pre-trained here
    pretrained: {small: base, large: base}                        # in a variant: those of the profile that it varies
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from filelock import FileLock

from jmp_lib.files import file_sha256, write_json
from jmp_lib.profile import Profile


def given_start(profile: Profile, size: str, out_dir: Path) -> dict | None:
    """{scale_factors, pretrained: {file, sha256}} of the weights that the profile names for ``size``, None without.

    The weights are put under ``work/given/<size>`` of the results (as a link where that is possible), so that the
    results are whole. A declared factor of 0 (not fitted) becomes 1, which acts the same. Raises ``ValueError`` when
    they are of another network, ``FileNotFoundError`` when they are missing.
    """
    name = profile.pretrained.get(size)
    if name is None:
        return None
    from jmp_lib.load import read_info, weights_path

    if name == "base":  # of a variant: the pre-training of its profile, whose results hold those of the variant
        source = Path(out_dir).parent.parent / "work" / "pretrain" / size / "model.safetensors"
        if not source.is_file():
            raise FileNotFoundError(f"pretrained.{size}: base: {source} is missing; run profile "
                                    f"{profile.name.removesuffix(f'-{profile.variant}')} first")
    else:
        source = weights_path({"small": "jmp-s", "large": "jmp-l"}[size] if name == "official" else name)
    info = read_info(source)
    if info["kind"] != "pretrain":
        raise ValueError(f"pretrained.{size}: {source} is a fine-tuned network; give the folder of a pre-training")
    if info["backbone"] != profile.models[size].to_dict():
        other = [key for key, value in profile.models[size].to_dict().items() if info["backbone"].get(key) != value]
        raise ValueError(f"pretrained.{size}: {source} is another network than models.{size} ({', '.join(other)} differ)")
    factors, excused = info.get("scale_factors") or {}, info.get("not_fitted", ())
    return {"scale_factors": {key: value or (1.0 if key in excused else 0.0) for key, value in factors.items()},
            "pretrained": _place(source, info, Path(out_dir) / "work" / "given" / size, out_dir)}


def _place(source: Path, info: dict, folder: Path, out_dir: Path) -> dict:
    """Link or copy the weights and their JSON into ``folder``; the file entry of the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    target, wanted = folder / "model.safetensors", file_sha256(source)
    with FileLock(folder / "lock"):
        if not target.exists() or file_sha256(target) != wanted:
            temporary = folder / f"model.{os.getpid()}.tmp"
            try:
                os.link(source, temporary)
            except OSError:
                shutil.copyfile(source, temporary)
            os.replace(temporary, target)
        if not (folder / "model.json").exists() or json.loads((folder / "model.json").read_text()) != info:
            write_json(folder / "model.json", info)
    return {"file": target.relative_to(out_dir).as_posix(), "sha256": wanted}
