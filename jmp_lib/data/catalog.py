"""What can be downloaded: every published data set and part, its files, where they go and how they are read.

Addresses, sizes, checksums and licences are those of ``facts/downloads.csv``; here is only what goes together.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jmp_lib import facts
from jmp_lib.data.fetch import Source
from jmp_lib.strict import nearest

CITATIONS = {
    "OC20": "Chanussot et al., ACS Catal. 11, 6059 (2021)",
    "OC22": "Tran et al., ACS Catal. 13, 3066 (2023)",
    "ANI-1x": "Smith et al., Sci. Data 7, 134 (2020)",
    "Transition-1x": "Schreiner et al., Sci. Data 9, 779 (2022)",
    "QM9": "Ramakrishnan et al., Sci. Data 1, 140022 (2014)",
    "rMD17": "Christensen, von Lilienfeld, Mach. Learn.: Sci. Technol. 1, 045018 (2020)",
    "MD22": "Chmiela et al., Sci. Adv. 9, eadf0873 (2023)",
    "SPICE": "Eastman et al., Sci. Data 10, 11 (2023)",
    "MatBench": "Dunn et al., npj Comput. Mater. 6, 138 (2020)",
    "QMOF": "Rosen et al., Matter 4, 1578 (2021)",
}
SPICE_VERSION = "1.1.4"  # the last of 1.x; which one the official subset files were cut from is not published


@dataclass(frozen=True)
class Entry:
    """A data set or a part of one.

    files: each needed file as its alternatives, best first; folder: where they go under the data root; unpack: names of
    archives inside the archive to unpack too; reader, options: module of ``jmp_lib.data`` and its options;
    originals: patterns of what the reader takes, under the folder, of which the first with a match is taken.
    """

    name: str
    dataset: str
    what: str
    files: tuple[tuple[str, ...], ...]
    folder: str
    reader: str
    originals: tuple[str, ...]
    options: tuple[tuple[str, str], ...] = ()
    unpack: tuple[str, ...] = ()
    unpack_at_root: tuple[str, ...] = ()  # archives whose own top folder is ``folder``
    cut_to: str = ""  # SPICE: the subset that the large file is cut to

    def rows(self, file: str) -> list[dict]:
        """Rows of downloads.csv for one file: its addresses, without those of an older version."""
        found = [row for row in _downloads() if (row["dataset"], row["file"]) == (self.dataset, file)]
        return [row for row in found if row["use"] != "single file of version 1"]

    def sources(self, file: str) -> list[Source]:
        """Addresses of one file in the order of downloads.csv."""
        return [_source(row) for row in self.rows(file)]

    @property
    def size(self) -> str:
        """Size to download, and on disk where both are published, in words."""
        rows = [self.rows(file[0])[0] for file in self.files]
        known = [row["size_text"] or _size(int(row["size_bytes"])) for row in rows if row["size_text"] or row["size_bytes"]]
        unknown = len(rows) - len(known)
        return " + ".join(known + ([f"{unknown} file{'s' * (unknown > 1)} of a size not published"] if unknown else []))

    @property
    def licence(self) -> str:
        """The licence as stated for its files."""
        found = {row["licence"] for file in self.files for row in self.rows(file[0]) if row["licence"]}
        return ", ".join(sorted(found)) or "not stated"

    @property
    def citation(self) -> str:
        """The publication to cite."""
        return CITATIONS[self.dataset]

    def find(self, data_root: str | Path) -> list[Path]:
        """The original files that are there, under the first pattern that has any."""
        folder = Path(data_root).expanduser() / self.folder
        for pattern in self.originals:
            if found := sorted(path for path in folder.glob(pattern) if not path.name.endswith(".partial")):
                return found
        return []

    def store(self, data_root: str | Path) -> Path:
        """Where its store lies once prepared."""
        return Path(data_root).expanduser() / "stores" / self.name


@cache
def _downloads() -> list[dict]:
    table = facts.downloads()
    return table.where(table.notna(), "").to_dict("records")


def _source(row: dict) -> Source:
    url = row["url"]
    if "zenodo.org/record" in url:  # the row names the page of the record; its files lie below
        url = f"{url.replace('/record/', '/records/')}/files/{row['file']}?download=1"
    checksum = f"sha256:{row['sha256']}" if row["sha256"] else f"md5:{row['md5']}" if row["md5"] else None
    return Source(url, checksum, int(row["size_bytes"]) if row["size_bytes"] else None)


def _size(count: int) -> str:
    """Bytes as the published texts say sizes: 5.6G, 490M, 0.49M."""
    return f"{count / 1e9:.2g}G" if count >= 1e9 else f"{count / 1e6:.2g}M"


def _oc20(size: str, what: str) -> Entry:
    return Entry(f"oc20-{size.lower()}", "OC20", what, ((f"s2ef_train_{size}.tar",), ("oc20_ref.pkl",)),
                 f"oc20/{size.lower()}", "oc20", ("**/*.extxyz.xz", "**/*.lmdb", "*.traj"))  # fmt: skip


def _oc22(name: str, words: str, part: str) -> Entry:
    return Entry(name, "OC22", f"OC22 S2EF total energies, {words}", (("s2ef_total_train_val_test_lmdbs.tar.gz",),), "oc22",
                 "oc22", (f"**/{part}/**/*.lmdb", f"*{part.removesuffix('_id')}*.pkl"))  # fmt: skip


def _transition1x(name: str, words: str, part: str) -> Entry:
    return Entry(name, "Transition-1x", f"Transition-1x, {words}", (("Transition1x.h5",),), "transition1x", "transition1x",
                 ("Transition1x.h5",), (("part", part),))  # fmt: skip


def _matbench(task: str) -> Entry:
    file = f"matbench_{task}.json.gz"
    return Entry(f"matbench-{task}", "MatBench", f"MatBench v0.1 {task}", ((file,),), "matbench", "matbench", (file,))


def _spice(subset: str, words: str) -> Entry:
    upstream = f"SPICE-{SPICE_VERSION}.hdf5"
    return Entry(f"spice-{subset.replace('_', '-')}", "SPICE", f"SPICE {words}, cut from SPICE {SPICE_VERSION}",
                 ((upstream,),), "spice", "spice", (f"{subset}.h*5", f"SPICE_{subset}.h*5", upstream),
                 (("subset", subset),), cut_to=subset)  # fmt: skip


def entries() -> dict[str, Entry]:
    """All data sets by name, in the order of the paper."""
    rmd17 = tuple((row["file"],) for row in _downloads() if row["use"] == "later per-molecule file")
    md22 = tuple((row["file"],) for row in _downloads() if row["dataset"] == "MD22")
    made = [
        _oc20("200K", "OC20 S2EF, 200 thousand frames"),
        _oc20("2M", "OC20 S2EF, 2 million frames"),
        _oc20("20M", "OC20 S2EF, 20 million frames"),
        _oc20("all", "OC20 S2EF, all 134 million frames"),
        Entry("oc20-val", "OC20", "OC20 S2EF, validation frames like the training ones",
              (("s2ef_val_id.tar",), ("oc20_ref.pkl",)), "oc20/val_id", "oc20", ("**/*.extxyz.xz", "**/*.lmdb")),
        _oc22("oc22", "training frames", "train"),
        _oc22("oc22-val", "validation frames like the training ones", "val_id"),
        Entry("ani1x", "ANI-1x", "ANI-1x, 5 million frames of small molecules", (("ani1x-release.h5",),), "ani1x", "ani1x",
              ("ani1x-release.h5",)),
        _transition1x("transition1x", "9.6 million frames of reactions, training part", "train"),
        _transition1x("transition1x-val", "validation part", "val"),
        _transition1x("transition1x-test", "test part", "test"),
        Entry("qm9", "QM9", "QM9, 130,831 molecules", (("qm9.zip",), ("uncharacterized.txt",)), "qm9", "qm9",
              ("qm9_v3.pt", "**/gdb9.sdf", "*.xyz.tar.bz2", "qm9*.npz")),
        Entry("rmd17", "rMD17", "rMD17, ten molecules with the five shipped splits", (("12672038.zip", "rmd17.tar.bz2"),),
              "rmd17", "rmd17", ("npz_data/rmd17_*.npz",), unpack=("rmd17.tar.bz2",), unpack_at_root=("rmd17.tar.bz2",)),
        Entry("rmd17-molecules", "rMD17", "rMD17, ten molecules in one file each, checksums published", rmd17, "rmd17",
              "rmd17", ("rmd17_*.npz",)),
        Entry("md22", "MD22", "MD22, seven large molecules", md22, "md22", "md22", ("md22_*.npz",)),
        _spice("solvated_amino_acids", "solvated amino acids"),
        _spice("dipeptides", "dipeptides"),
        *map(_matbench, ("jdft2d", "phonons", "dielectric", "log_gvrh", "log_kvrh", "perovskites", "mp_gap", "mp_e_form")),
        Entry("qmof", "QMOF", "QMOF v14, PBE band gaps", (("13147324.zip",),), "qmof", "qmof",
              ("**/qmof.json", "qmof*.npz"), unpack=("qmof_database.zip",)),
    ]  # fmt: skip
    return {entry.name: entry for entry in made}


def entry(name: str) -> Entry:
    """One data set; ``ValueError`` that names the nearest for a name that is none."""
    found = entries()
    if name not in found:
        raise ValueError(f"there is no data set {name!r}; {nearest(name, found).replace('key', 'name')}")
    return found[name]
