"""Checkpoints that are damaged, of something else, or malicious: one sentence each, and nothing in them runs."""

import builtins
import os
import pickle
import struct
import subprocess
import zipfile

import pytest
import torch
from official_files import Call, checkpoint_of, foreign, official_model, rewrite, write
from test_model import NARROW

from jmp_lib.official.checkpoint import COUNTER
from jmp_lib.official.importing import import_checkpoint

NAME = "backbone.int_blocks.1.dense_ca.linear.weight"
RBF = "backbone.bases.radial_basis.rbf.offset"
ALIAS = "backbone.out_blocks.1.seq_energy_pre.0.linear.weight"


@pytest.fixture(scope="module")
def model():
    return official_model(NARROW)


@pytest.fixture
def parts(model):
    return checkpoint_of(model)


@pytest.fixture
def file(parts, tmp_path):
    write(tmp_path / "jmp.pt", parts)
    return tmp_path / "jmp.pt"


def importing(file):
    return import_checkpoint(file, file.parent / "out", networks={"small": NARROW})


def refused(file, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        importing(file)
    assert str(file.name) in str(caught.value) and "\n" not in str(caught.value)
    assert not (file.parent / "out").exists()


def state(change):
    return lambda parts: change(parts["state_dict"])


def first(change):
    return lambda parts: change(parts["optimizer_states"][0])


def with_average(parts, value):
    ema = parts["optimizer_states"][0]["ema"]
    parts["optimizer_states"][0]["ema"] = (value(ema[0]), *ema[1:])


def reordered(parts):
    old = parts["state_dict"]
    names = list(old)
    names[1], names[2] = names[2], names[1]
    parts["state_dict"] = {name: old[name] for name in names}


def in_an_object(parts):
    """The configuration as an instance of a class of the authors."""
    parts["hyper_parameters"]["backbone"] = config = foreign("absent_configs", "BackboneConfig")()
    config.absolute_rbf_cutoff = 8.0


@pytest.mark.parametrize("change, words", [
    (state(lambda s: s.pop(NAME)), "lacks 'backbone.int_blocks.1.dense_ca"),
    (state(lambda s: s.update({"backbone.extra": torch.zeros(2)})), "has the unknown 'backbone.extra' .1 such"),
    (state(lambda s: s.update({NAME: torch.zeros(3, 4)})), r"is \(3, 4\) torch.float32, that of the network"),
    (state(lambda s: s.update({NAME: s[NAME].half()})), "torch.float16, that of the network .* torch.float32"),
    (lambda p: with_average(p, lambda t: t * float("nan")), "not finite"),
    (state(lambda s: s.update({NAME: "text"})), "is not a tensor"),
    (state(lambda s: s.update({RBF: s[RBF] + 0.1})), "evenly spaced Gaussians"),
    (state(lambda s: s.update({ALIAS: s[ALIAS] + 0.1})), "must be the same tensor and differ"),
    (state(lambda s: s.update({"backbone.bases.edge_emb.dense.linear.weight": torch.zeros(7, 2)})), "neither small"),
    (first(lambda o: o.update(ema=o["ema"][:-1])), "averaged weights for"),
    (first(lambda o: o.pop("ema")), "no averaged"),
    (lambda p: p.update(optimizer_states=[]), "no averaged"),
    (lambda p: with_average(p, lambda t: t[:5]), r"the averaged 'embedding.atom_embedding.weight' is \(5,"),
    (lambda p: with_average(p, lambda t: t.double()), "the averaged .* torch.float64, that of the network"),
    (lambda p: with_average(p, lambda t: 3), "the averaged .* is not a tensor"),
    (lambda p: p.pop("state_dict"), "no state_dict"),
    (reordered, "not in the official order"),
    (state(lambda s: s.pop(COUNTER.format("oc22"))), "step counters .3. are not those of oc20, oc22"),
    (state(lambda s: s.update({COUNTER.format("oc20"): s.pop(COUNTER.format("oc20"))})),
     "step counters .4. are not those of oc20, oc22"),
    (lambda p: p["hyper_parameters"]["backbone"].update(absolute_rbf_cutoff=8.0), "absolute_rbf_cutoff = 8.0"),
    (in_an_object, "absolute_rbf_cutoff = 8.0"),
])  # fmt: skip
def test_content_that_does_not_fit(parts, tmp_path, change, words):
    change(parts)
    write(tmp_path / "jmp.pt", parts)
    refused(tmp_path / "jmp.pt", words)


def test_the_counters_may_be_absent(parts, tmp_path):
    for name in [n for n in parts["state_dict"] if n.startswith("task_steps")]:
        del parts["state_dict"][name]
    write(tmp_path / "jmp.pt", parts)
    importing(tmp_path / "jmp.pt")


@pytest.mark.parametrize("content, words", [
    (b"", "is empty"),
    (b"<!DOCTYPE html><html>403</html>", "web page"),
    (b"version https://git-lfs.github.com/spec/v1\n", "git-lfs pointer"),
    (b"PK\x03\x04 and no more", "damaged or cut short"),
    (b"something else entirely", "no zip file"),
    (pickle.dumps({"state_dict": {}}, protocol=2), "no zip file"),
])  # fmt: skip
def test_files_of_something_else(tmp_path, content, words):
    (tmp_path / "jmp.pt").write_bytes(content)
    refused(tmp_path / "jmp.pt", words)


def test_a_file_of_the_old_torch_format(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "jmp.pt", _use_new_zipfile_serialization=False)
    refused(tmp_path / "jmp.pt", "no zip file")


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="jmp.pt is missing"):
        importing(tmp_path / "jmp.pt")


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_a_file_that_is_cut_short(file, kept):
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * kept)])
    refused(file, "damaged or cut short")


def used_entry(file) -> str:
    """Name of an entry that the import reads: the largest, some weight of the network."""
    with zipfile.ZipFile(file) as zipped:
        return max(zipped.infolist(), key=lambda info: info.file_size * ("/data/" in info.filename)).filename


def test_a_changed_number_is_noticed(file):
    entry = used_entry(file)
    with zipfile.ZipFile(file) as zipped:
        (used,) = [info for info in zipped.infolist() if info.filename == entry]
    data = bytearray(file.read_bytes())
    data[used.header_offset + 400] ^= 1
    file.write_bytes(data)
    refused(file, "checksum of .*/data/.* does not fit")


def test_entries_that_are_missing_altered_or_compressed(file):
    whole, entry = file.read_bytes(), used_entry(file)
    for change, words in (
        (lambda name, data: None if name.endswith("data.pkl") else data, "no readable torch checkpoint"),
        (lambda name, data: None if name == entry else data, "no readable torch checkpoint"),
        (lambda name, data: data[:-50] if name.endswith("data.pkl") else data, "data.pkl is altered"),
    ):
        file.write_bytes(whole)
        rewrite(file, change)
        refused(file, words)
    file.write_bytes(whole)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("archive/bomb", bytes(10_000))
    refused(file, "compressed, or a program")


def test_a_view_beyond_its_storage(parts, tmp_path):
    """A tensor whose shape claims more numbers than its storage has."""
    storage = torch.zeros(6).storage()
    parts["state_dict"][NAME] = Call(torch._utils._rebuild_tensor_v2, storage, 0, (7,), (1,), False, {})
    write(tmp_path / "jmp.pt", parts)
    refused(tmp_path / "jmp.pt", "data.pkl is altered")


@pytest.fixture
def mark(tmp_path):
    return tmp_path / "it-ran"


def attacks(mark) -> dict:
    code = f"open({str(mark)!r}, 'w').close()"
    return {
        "system": Call(os.system, f"touch {mark}"),
        "eval": Call(builtins.eval, code), "exec": Call(builtins.exec, code),
        "nested": {"a": [Call(getattr, Call(__import__, "os"), "system"), (Call(os.system, f"touch {mark}"),)]},
        "subprocess": Call(subprocess.getoutput, f"touch {mark}"), "torch": Call(torch.load, str(mark)),
        "tuple key": {(1, Call(os.system, f"touch {mark}")): 1},
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["system", "eval", "exec", "nested", "subprocess", "torch", "tuple key"])
@pytest.mark.parametrize("place", ["hyper_parameters", "state_dict", "ema"])
def test_malicious_content_does_not_run(parts, tmp_path, mark, kind, place):
    attack = attacks(mark)[kind]
    if place == "hyper_parameters":
        parts["hyper_parameters"]["trainer"] = attack
    elif place == "state_dict":
        parts["state_dict"][NAME] = attack
    else:
        with_average(parts, lambda _: attack)
    write(tmp_path / "jmp.pt", parts)
    if place == "hyper_parameters":  # inert, and the rest is whole
        importing(tmp_path / "jmp.pt")
    else:
        refused(tmp_path / "jmp.pt", "is not a tensor")
    assert not mark.exists()


def test_opcodes_that_torch_never_writes(file, mark):
    """Pickles by hand: a call as the whole content, attributes put on a stand-in class, a wrong persistent id."""
    whole = file.read_bytes()
    for pickled in (
        b"cos\nsystem\n(Vtouch %b\ntR." % str(mark).encode(),
        b"\x80\x02cos\nsystem\n}Vstate\nK\x01sb.",
        b"\x80\x02ccollections\nOrderedDict\n}V__init__\ncos\nsystem\nsb.",
        b"\x80\x02(Vstorage\ncos\nsystem\nV0\nVcpu\nK\x01tQ.",
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x01))tR.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nN}V__defaults__\n)s\x86b.",  # attributes put on a function
        b"\x80\x02]r\xf0\xff\xff\x7f.",  # a place in a table of 34 GB
    ):
        file.write_bytes(whole)
        rewrite(file, lambda name, data, pickled=pickled: pickled if name.endswith("data.pkl") else data)
        refused(file, "no state_dict|data.pkl is altered")
    assert not mark.exists()


def split_zip(data: bytes) -> tuple[bytes, list[bytes]]:
    """Body and entries of the directory of a small zip."""
    start, at, entries = struct.unpack_from("<I", data, len(data) - 6)[0], 0, []
    body, directory = data[:start], data[start:]
    while directory[at : at + 4] == b"PK\1\2":
        length = 46 + sum(struct.unpack_from("<HHH", directory, at + 28))
        entries.append(directory[at : at + length])
        at += length
    return body, entries


def test_a_program_that_torch_alone_finds(file, monkeypatch):
    """Two zips in one file: Python looks for the directory just before the end record, torch where that record says."""
    monkeypatch.setattr(torch.jit, "load", lambda *_args, **_kwargs: pytest.fail("a program was loaded"))
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), file.with_name("program.pt"))
    (program, theirs), (body, entries) = (split_zip(path.read_bytes()) for path in (file.with_name("program.pt"), file))
    # what Python adds again, since it finds the directory later than stated
    shift = len(program) - len(b"".join(theirs))
    for number, entry in enumerate(entries):
        offset = struct.pack("<I", struct.unpack_from("<I", entry, 42)[0] + shift)
        entries[number] = entry[:42] + offset + entry[46:]
    directory = b"".join(entries)
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, len(theirs), len(theirs),
                      len(directory), len(program) + len(body), 0)
    file.write_bytes(program + body + b"".join(theirs) + directory + end)
    with zipfile.ZipFile(file) as zipped:
        assert zipped.testzip() is None and not any("constants" in name for name in zipped.namelist())
    assert "constants.pkl" in torch._C.PyTorchFileReader(str(file)).get_all_records()
    refused(file, "two directories")


def test_bytes_before_the_zip(file):
    file.write_bytes(b"PK\3\4" + bytes(60) + file.read_bytes())
    refused(file, "damaged or cut short|two directories")
