"""Pickles of strangers: what they may build is read to the last digit, everything else is refused and not run."""

import collections
import os
import pickle
import pickletools
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from jmp_lib.data.pickles import DTYPES, GRAPHS, Graph, Refused, load_pickle, loads

DATA = os.environ.get("JMP_DATA", "").partition(os.pathsep)[0]  # the first, where there are several folders
AS_TOLD = {"where": "the file", "mend": "get it again"}


def read(item, protocol=4):
    return loads(pickle.dumps(item, protocol), **AS_TOLD)


def graph(**fields):
    rng = torch.Generator().manual_seed(0)
    return Data(
        pos=torch.rand(5, 3, generator=rng), cell=torch.eye(3)[None],
        z=torch.arange(5), y=-1.5, sid="random12", **fields
    )


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_graphs_come_out_as_arrays(protocol):
    made = graph(fixed=torch.tensor([True, False, True, True, False]),
                 force=torch.ones(5, 3, dtype=torch.float64).t().t())
    found = read([made, 3], protocol)
    assert isinstance(found[0], Graph) and found[1] == 3
    assert set(found[0]) == {"pos", "cell", "z", "y", "sid", "fixed", "force"}
    for key, value in made.to_dict().items():
        if torch.is_tensor(value):
            assert found[0][key].dtype == value.numpy().dtype
            assert np.array_equal(found[0][key], value.numpy())
        else:
            assert found[0][key] == value


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor(3.25),
        torch.arange(6.0).reshape(2, 3).t(),
        torch.arange(20)[5:15:2],
        torch.arange(3, dtype=torch.int16).expand(4, 3),
        torch.empty(0, 3),
        torch.tensor([1.5, 2.5], dtype=torch.float16),
    ],
)
def test_views_of_tensors(tensor):
    found = read({"t": tensor})["t"]
    assert found.shape == tuple(tensor.shape) and np.array_equal(found, tensor.numpy())


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_numpy_and_containers(protocol):
    item = {
        "a": np.arange(6.0).reshape(2, 3), "f": np.asfortranarray(np.arange(6).reshape(2, 3)), "s": np.float64(0.1),
        "big": np.arange(3, dtype=">i4"), "u": np.array(["H", "Og"]), "o": collections.OrderedDict(x=1), "t": (1, None),
        "w": {1, 2}, "b": b"\x00\xff",
    }  # fmt: skip
    found = read(item, protocol)
    for key in ("a", "f", "big", "u"):
        assert np.array_equal(found[key], item[key])
    assert [found[key] for key in ("s", "o", "t", "w", "b")] == [0.1, {"x": 1}, (1, None), {1, 2}, b"\x00\xff"]


def test_graph_of_the_first_torch_geometric_keeps_its_fields_at_hand():
    # version 1 pickled the attributes of Data themselves: NEWOBJ, then a dict of fields
    code = b"\x80\x02ctorch_geometric.data.data\nData\n)\x81}(U\x01yG?\xf8\x00\x00\x00\x00\x00\x00U\x01xNub."
    pickletools.dis(code, out=open(os.devnull, "w"))
    assert loads(code, **AS_TOLD) == {"y": 1.5}


class Runs:
    """Pickles into a call of ``function`` with ``args``."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("function", "args", "name"),
    [
        (os.system, ("touch {mark}",), "system"),
        (eval, ("open({mark!r}, 'w')",), "builtins.eval"),
        (exec, ("open({mark!r}, 'w')",), "builtins.exec"),
        (getattr, (dict, "fromkeys"), "builtins.getattr"),
        (subprocess.call, (["touch", "{mark}"],), "subprocess.call"),
        (np.load, ("{mark}",), "numpy.load"),
        (torch.load, ("{mark}",), "torch.serialization.load"),
        (__import__, ("os",), "builtins.__import__"),
    ],
)
def test_calls_are_refused_and_not_made(tmp_path, function, args, name):
    mark = tmp_path / "mark"
    args = [arg.format(mark=str(mark)) if isinstance(arg, str) else arg for arg in args]
    for item in (Runs(function, *args), [graph(), {"y": Runs(function, *args)}], graph(extra=Runs(function, *args))):
        with pytest.raises(Refused, match=rf"^the file asks for \S*{name}, which is never loaded .*; get it again$"):
            read(item)
    assert not mark.exists()


def test_a_call_inside_a_tensor_is_refused(tmp_path):
    mark = tmp_path / "mark"
    inner = pickle.dumps(Runs(os.system, f"touch {mark}"))
    with pytest.raises(Refused, match="system, which is never loaded"):
        read(Runs(torch.storage._load_from_bytes, inner))
    assert not mark.exists()


def test_what_may_be_named_cannot_be_changed():
    """BUILD on a name sets attributes of what it names, which would last for every later pickle."""
    for module, _, name in (origin.rpartition(".") for origin in (*GRAPHS, *DTYPES)):
        code = b"\x80\x04c" + f"{module}\n{name}\n".encode() + b"N}\x8c\x04markNs\x86b."
        with pytest.raises(ValueError, match="is not a readable pickle"):
            loads(code, **AS_TOLD)
        assert not hasattr(Graph, "mark")
    assert read(graph())["y"] == -1.5


@pytest.mark.parametrize(
    "args",
    [(0, (10**6, 10**6), (0, 0)), (0, (7,), (1,)), (5, (2,), (1,)),
     (-1, (2,), (1,)), (0, (2,), (-1,)), (0, (2, 2), (1,))],
)
def test_views_beyond_their_storage_are_damage(args):
    def rebuilt(offset, size, stride):
        storage = torch.storage.TypedStorage([0, 1, 2, 3, 4, 5], dtype=torch.float32)
        return Runs(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False, collections.OrderedDict())

    assert read(rebuilt(1, (2, 2), (3, 1))).tolist() == [[1, 2], [4, 5]]
    with pytest.raises(ValueError, match="^the file is not a readable pickle"):
        read(rebuilt(*args))


def test_numpy_of_objects_is_not_read():
    with pytest.raises(ValueError, match="is not a readable pickle"):
        read(np.array([1, "a"], dtype=object))


class Built:
    """Pickles into a call and the state that its result is given."""

    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize("state", [
    (1, (-1, -1), np.dtype("f8"), False, bytes(8)),
    (1, (10**12,), np.dtype("f8"), False, bytes(8)), (1, (1,), np.dtype("O"), False, [1]), "x",
])  # fmt: skip
def test_arrays_take_no_state_that_their_bytes_do_not_hold(state):
    reconstruct = np.zeros(1).__reduce__()[0]
    assert read(Built(reconstruct, (np.ndarray, (0,), b"b"),
                      (1, (2, 1), np.dtype("i2"), False, bytes(4)))).tolist() == [[0], [0]]
    with pytest.raises(ValueError, match="is not a readable pickle"):
        read(Built(reconstruct, (np.ndarray, (0,), b"b"), state))
    rebuilt = torch.zeros(3).__reduce_ex__(2)
    with pytest.raises(ValueError, match="is not a readable pickle"):
        read(Built(*rebuilt[:2], state))


def test_cut_or_altered_pickles_end_in_one_sentence():
    whole = pickle.dumps([graph(), graph()])
    for length in range(0, len(whole), 37):
        with pytest.raises(ValueError, match="^the file .*; get it again$"):
            loads(whole[:length], **AS_TOLD)
    rng = np.random.default_rng(0)
    for _ in range(300):  # any altered byte: a graph or one sentence
        bad = bytearray(whole)
        bad[rng.integers(len(bad))] ^= 1 << rng.integers(8)
        try:
            loads(bytes(bad), **AS_TOLD)
        except ValueError as error:
            assert "\n" not in str(error) and str(error).startswith("the file ")


@pytest.mark.parametrize(
    ("content", "says"), [(b"", "is empty"), (b"<!DOCTYPE html>", "is a web page"), (b"\x80\x04K", "is not a readable")]
)
def test_files_that_are_no_pickles(tmp_path, content, says):
    path = tmp_path / "a.pkl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"a.pkl {says}.*; get it again"):
        load_pickle(path, mend="get it again")
    with pytest.raises(FileNotFoundError, match="b.pkl is missing; get it again"):
        load_pickle(tmp_path / "b.pkl", mend="get it again")


def test_neither_torch_load_nor_pickle_load_is_used(monkeypatch):
    for module, name in ((torch, "load"), (pickle, "load"), (pickle, "loads"), (np, "load")):
        monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail("a loader that runs code"))
    assert read(graph())["y"] == -1.5


@pytest.mark.skipif(not DATA, reason="JMP_DATA names no folder of published files")
@pytest.mark.parametrize("name", ["oc22/oc22_train", "oc22/oc22_val", "ani1x/ani1x_train", "transition1x/trans1x_val"])
def test_published_pickles_equal_their_plain_copies(name):
    found = load_pickle(Path(DATA) / f"{name}_pickle16.pkl", mend="")
    copy = np.load(Path(DATA) / f"{name}_pickle16.npz")
    assert len(found) == 16
    assert [one["y"] for one in found] == copy["y"].tolist()
    for key in ("pos", "force", "atomic_numbers", "tags"):
        assert np.array_equal(np.concatenate([one[key] for one in found]), copy[key])
