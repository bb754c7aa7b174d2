"""Freed memory is kept for the next step."""

import platform
import subprocess
import sys

import pytest

CODE = """
import ctypes, resource, sys
from jmp_lib.train.processes import keep_freed_memory
assert not sys.argv[1:] or keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
def faults(size=64_000_000):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    array = libc.malloc(size)
    libc.memset(array, 1, size)
    libc.free(array)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults(), faults(), faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep memory")
def test_a_large_array_is_cleared_by_the_system_once():
    def counts(*arguments):
        done = subprocess.run([sys.executable, "-c", CODE, *arguments], capture_output=True, text=True, check=True)
        return [int(word) for word in done.stdout.split()]

    given_back, kept = counts(), counts("keep")
    assert min(given_back) > 100 and max(kept[1:]) < 0.1 * min(given_back)
