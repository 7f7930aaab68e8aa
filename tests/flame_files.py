"""Files in the layout of the published ones, written byte by byte; the same assembler makes the hostile ones."""

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Global:
    module: str
    name: str


@dataclass(frozen=True)
class Call:
    function: Any
    args: tuple


@dataclass(frozen=True)
class New:
    kind: Any
    args: tuple = ()


@dataclass(frozen=True)
class Build:
    thing: Any
    state: Any


def emit(x: Any) -> bytes:
    """One object in the opcodes of Python 2's protocol 2; str and bytes are both its str."""
    if x is None or isinstance(x, bool):
        return {None: b"N", True: b"\x88", False: b"\x89"}[x]
    if isinstance(x, int):
        return b"J" + struct.pack("<i", x)
    if isinstance(x, str | bytes):
        data = x.encode("latin1") if isinstance(x, str) else x
        return b"T" + struct.pack("<i", len(data)) + data
    if isinstance(x, tuple):
        return b"(" + b"".join(map(emit, x)) + b"t"
    if isinstance(x, list):
        return b"](" + b"".join(map(emit, x)) + b"e"
    if isinstance(x, dict):
        return b"}(" + b"".join(emit(k) + emit(v) for k, v in x.items()) + b"u"
    if isinstance(x, Global):
        return f"c{x.module}\n{x.name}\n".encode()
    if isinstance(x, Call):
        return emit(x.function) + emit(x.args) + b"R"
    if isinstance(x, New):
        return emit(x.kind) + emit(x.args) + b"\x81"
    if isinstance(x, Build):
        return emit(x.thing) + emit(x.state) + b"b"
    return emit(array(np.asarray(x)))


def dump(x: Any) -> bytes:
    return b"\x80\x02" + emit(x) + b"."


def array(values: np.ndarray, fortran: bool = False) -> Build:
    """As numpy 1 under Python 2 wrote it."""
    kind = values.dtype.str
    name, order = kind[1:], kind[0]
    dtype = Build(
        Call(Global("numpy", "dtype"), (name, 0, 1)), (3, order, None, None, None, -1, -1, 0)
    )
    start = Call(Global("numpy.core.multiarray", "_reconstruct"), (Global("numpy", "ndarray"), (0,), "b"))
    return Build(start, (1, values.shape, dtype, fortran, values.tobytes("F" if fortran else "C")))


def chumpy(values: np.ndarray) -> Build:
    """chumpy.ch.Ch with the members that its pickles have."""
    state = dict(x=values, _dirty_vars=Call(Global("__builtin__", "set"), ([],)), _itr=None, _depends_on_deps=[])
    return Build(New(Global("chumpy.ch", "Ch")), state)


def sparse(values: np.ndarray) -> Build:
    """scipy.sparse.csc.csc_matrix of scipy before 1.8."""
    rows, columns = np.nonzero(values.T)[1], np.nonzero(values.T)[0]
    ends = np.searchsorted(columns, np.arange(values.shape[1] + 1)).astype(np.int32)
    state = dict(
        maxprint=50, _shape=values.shape, indices=rows.astype(np.int32), indptr=ends, format="csc",
        data=values[rows, columns],
    )  # fmt: skip
    return Build(New(Global("scipy.sparse.csc", "csc_matrix")), state)
