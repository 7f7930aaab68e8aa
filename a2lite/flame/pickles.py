"""Reading FLAME's pickles without running them: every global a file may name becomes an inert record.

FLAME is published as Python 2 pickles that hold numpy arrays, scipy's ``csc_matrix`` and ``chumpy`` arrays, and its
landmarks with torch tensors among them. A pickle is a program; this reader lets it build containers, numbers, strings
and the records below, and nothing else. Neither numpy's nor scipy's nor chumpy's nor torch's own code is called by a
file. See notebooks/01_flame.ipynb.
"""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np

LIMIT = 2**30  # bytes; FLAME 2020 has 53 MB
_OPEN = object()

Plain = Callable[[Any], Any]


class UnsafePickle(ValueError):
    """A file that names something which is not needed to store arrays."""


class _NotHere(ValueError):
    """Harmless, and not a number."""


class _Record:
    """Keeps the arguments and the state that a pickle gives; its methods do nothing else."""

    def __init__(self, *args: Any):
        self.args, self.state = args, None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _DType(_Record):
    """numpy.dtype(name, align, copy), whose state has the byte order at [1]."""

    def numpy(self) -> np.dtype:
        name = self.args[0] if self.args else None
        name = name.decode("latin1") if isinstance(name, bytes) else name
        if not isinstance(name, str) or name[:1] not in "biuf" or not name[1:].isdigit():
            raise UnsafePickle(f"an array of type {_word(name)}; expected plain numbers")
        order = self.state[1] if isinstance(self.state, tuple) and len(self.state) > 1 else "="
        order = order.decode("latin1") if isinstance(order, bytes) else order
        if order not in ("<", ">", "=", "|"):
            raise UnsafePickle(f"an array of byte order {_word(order)}; expected < or >")
        return np.dtype(name).newbyteorder(order)


class _Array(_Record):
    """``_reconstruct(ndarray, (0,), b"b")`` with the state (version, shape, dtype, Fortran order, bytes)."""

    def resolve(self, plain: Plain) -> np.ndarray:
        shape, dtype, fortran, data = self._parts()
        if self.boxed():
            return plain(data[0])
        return _numbers(plain(data), dtype, plain(shape), "F" if fortran else "C")

    def boxed(self) -> list:
        """[the object] where np.save has put one Python object into an array, else []."""
        shape, _, _, data = self._parts()
        return data if isinstance(data, list) and len(data) == 1 and shape == () else []

    def _parts(self) -> tuple:
        if not isinstance(self.state, tuple) or len(self.state) not in (4, 5):
            raise ValueError("an array without its numbers")
        return self.state[-4:]


class _Buffer(_Record):
    """``_frombuffer(bytes, dtype, shape, order, axes)`` of numpy's protocol 5; axes are those of a transposed array."""

    def resolve(self, plain: Plain) -> np.ndarray:
        if len(self.args) not in (4, 5):
            raise ValueError("an array without its numbers")
        data, dtype, shape, order = self.args[:4]
        if order == "K" and len(self.args) == 5:
            return _numbers(plain(data), dtype, plain(shape), "C").transpose(plain(self.args[4]))
        return _numbers(plain(data), dtype, plain(shape), order)


class _Scalar(_Record):
    """``scalar(dtype, bytes)``."""

    def resolve(self, plain: Plain) -> np.ndarray:
        dtype, data = self.args
        return _numbers(plain(data), dtype, (), "C")


class _Encoded(_Record):
    """``_codecs.encode(text, "latin1")``: how Python 3 writes bytes at protocol 2."""

    def resolve(self, plain: Plain) -> bytes:
        text, codec = self.args
        if not isinstance(text, str) or codec not in ("latin1", "latin-1"):
            raise UnsafePickle(f"text encoded as {_word(codec)}; expected latin1")
        return text.encode("latin1")


class _Ch(_Record):
    """chumpy's array: its numbers are ``x`` in the state."""

    def resolve(self, plain: Plain) -> np.ndarray:
        if not isinstance(self.state, dict) or "x" not in self.state:
            raise ValueError("a chumpy array without its numbers (x)")
        return plain(self.state["x"])


class _Csc(_Record):
    """scipy's compressed sparse columns, to a dense array."""

    def resolve(self, plain: Plain) -> np.ndarray:
        state = self.state if isinstance(self.state, dict) else {}
        if not {"data", "indices", "indptr"} <= set(state):
            raise ValueError("a sparse matrix without data, indices and indptr")
        data, rows, ends = (np.asarray(plain(state[key])) for key in ("data", "indices", "indptr"))
        shape = plain(state.get("_shape", state.get("shape")))
        if not _is_shape(shape) or len(shape) != 2 or shape[0] * shape[1] > 2**26 or ends.shape != (shape[1] + 1,):
            raise ValueError(f"a sparse matrix whose shape and whose {ends.size} ends of columns do not agree")
        dense = np.zeros(shape, data.dtype)
        np.add.at(dense, (rows, np.repeat(np.arange(shape[1]), np.diff(ends))), data)
        return dense


class _Torch(_Record):
    """A part of a torch tensor: torch's own loader would execute the pickle within, so nothing is done with it."""

    def resolve(self, plain: Plain) -> np.ndarray:
        raise _NotHere("a torch tensor; expected a numpy array, as tensor.numpy() gives")


class _Ordered(_Record):
    """``collections.OrderedDict``: a tensor's hooks, and nothing that FLAME's files keep arrays in."""

    def resolve(self, plain: Plain) -> np.ndarray:
        raise _NotHere("an OrderedDict; expected a dict of arrays")

    def __setitem__(self, key: Any, value: Any) -> None:
        raise _NotHere("an OrderedDict; expected a dict of arrays")


class _Made(_Record):
    """``copy_reg._reconstructor(class, object, None)``: an instance at protocols 0 and 1."""

    def __new__(cls, kind: Any = None, *rest: Any):
        if not (isinstance(kind, type) and issubclass(kind, _Record)):
            raise UnsafePickle(f"an instance of {_word(kind)}; expected an array")
        return kind()


class _Name(_Record):
    """A name that no number needs: numpy.ndarray as an argument, a set among chumpy's members."""


_ALLOWED = {
    ("numpy", "dtype"): _DType,
    ("numpy", "ndarray"): _Name,
    ("builtins", "object"): _Name,
    ("builtins", "set"): _Name,
    ("copyreg", "_reconstructor"): _Made,
    ("_codecs", "encode"): _Encoded,
    ("chumpy.ch", "Ch"): _Ch,
    ("chumpy", "Ch"): _Ch,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Array for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _Scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _Buffer for core in ("core", "_core")},
    **{(f"scipy.sparse.{place}", "csc_matrix"): _Csc for place in ("csc", "_csc")},
    ("scipy.sparse", "csc_matrix"): _Csc,
    ("torch._utils", "_rebuild_tensor"): _Torch,
    ("torch._utils", "_rebuild_tensor_v2"): _Torch,
    ("torch._utils", "_rebuild_parameter"): _Torch,
    ("torch.storage", "_load_from_bytes"): _Torch,
    ("collections", "OrderedDict"): _Ordered,
}


class _Reader(pickle._Unpickler):
    """Python's own reader in Python: a key that C would hash to its death is looked at before it becomes one."""

    dispatch = dict(pickle._Unpickler.dispatch)

    def find_class(self, module: str, name: str) -> type[_Record]:
        place = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)
        if (place, name) not in _ALLOWED:
            raise UnsafePickle(f"names {_line(f'{module}.{name}', 80)}, which no array needs; nothing of it was run")
        return _ALLOWED[place, name]

    def persistent_load(self, pid: Any) -> Any:
        raise UnsafePickle("refers to objects outside of itself; nothing of it was run")

    def load_setitem(self) -> None:
        _check_keys(self.stack[-2:-1])
        super().load_setitem()

    def load_setitems(self) -> None:
        _check_keys(self.stack[::2])
        super().load_setitems()

    def load_dict(self) -> None:
        _check_keys(self.stack[::2])
        super().load_dict()

    def load_set(self) -> None:
        raise UnsafePickle("holds a set; expected arrays, numbers and text")

    dispatch |= {pickle.SETITEM[0]: load_setitem, pickle.SETITEMS[0]: load_setitems, pickle.DICT[0]: load_dict}
    dispatch |= dict.fromkeys([pickle.EMPTY_SET[0], pickle.ADDITEMS[0], pickle.FROZENSET[0]], load_set)


def _check_keys(keys: list) -> None:
    for key in keys:
        if type(key) not in (str, bytes, int):
            raise UnsafePickle(f"has a {type(key).__name__.strip('_')} as the key of a dict; expected text")


def read_pickle(path: str | Path, start: int = 0, keys: Collection[str] | None = None) -> Any:
    """What a pickle of arrays holds, from byte ``start`` on: dicts, lists, numbers, text and numpy arrays.

    ``chumpy`` arrays and sparse matrices become dense arrays. Nothing named in the file is imported or called.
    ``keys`` takes only these of a dict: then torch tensors elsewhere in it do no harm.
    UnsafePickle (a ValueError) where it names anything but arrays, asked for or not; ValueError where it is no
    pickle, is cut short, or has a torch tensor where an array is asked for.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if path.stat().st_size > LIMIT:
        raise ValueError(f"{path}: has {path.stat().st_size >> 20} MB; expected a pickle of {LIMIT >> 20} MB at most")
    data = path.read_bytes()[start:]
    if data.startswith(b"version https://git-lfs"):
        raise ValueError(f"{path}: is a Git LFS pointer, not the file; fetch it with git lfs pull")
    if data.startswith(b"PK\x03\x04"):
        raise ValueError(f"{path}: is an .npz or another zip archive; expected a published .pkl, unpacked")
    try:
        return _Resolver()(_only(keys, _Reader(io.BytesIO(data), encoding="latin1").load()))
    except UnsafePickle as error:
        raise UnsafePickle(f"{path}: {_line(str(error))}") from None
    except _NotHere as error:
        raise ValueError(f"{path}: {error}") from None
    except EOFError:
        raise ValueError(f"{path}: ends too early; it was cut short, download it again") from None
    except (
        pickle.UnpicklingError, ValueError, TypeError, AttributeError, KeyError, IndexError, ImportError,
        OverflowError, RecursionError, MemoryError, UnicodeError, struct.error,
    ) as error:  # fmt: skip
        short = "truncated" in str(error)
        cut = "ends too early; it was cut short, download it again"
        told = cut if short else f"is no pickle; download it again ({_line(str(error))})"
        raise ValueError(f"{path}: {told}") from None


def _only(keys: Collection[str] | None, value: Any) -> Any:
    """The dict with these keys alone, also where np.save has boxed it; anything else as it is."""
    if isinstance(value, _Array) and value.boxed():
        (value,) = value.boxed()
    if keys is None or not isinstance(value, dict):
        return value
    return {key: item for key, item in value.items() if isinstance(key, str) and key in keys}


def _line(text: str, most: int = 300) -> str:
    """Words out of a file, fit to be shown: one line of plain characters, ``most`` of them."""
    return " ".join(text.encode("unicode_escape").decode().split())[:most]


def _word(value: Any) -> str:
    """Text as it is, of anything else its kind: what is nested deeply takes for ever to write out."""
    return repr(value[:40]) if isinstance(value, str | bytes) else f"a {type(value).__name__.strip('_')}"


class _Resolver:
    """Records to arrays, through dicts, lists and tuples; what is named twice is made once, rings are refused."""

    def __init__(self):
        self.done: dict[int, Any] = {}
        self.seen: list[Any] = []  # kept alive, so that no other object takes over an id

    def __call__(self, value: Any) -> Any:
        if value is None or isinstance(value, bool | int | float | str | bytes):
            return value
        if isinstance(value, bytearray):
            return bytes(value)
        if id(value) not in self.done:
            self.seen.append(value)
            self.done[id(value)] = _OPEN
            self.done[id(value)] = self._make(value)
        elif self.done[id(value)] is _OPEN:
            raise UnsafePickle("holds an object that contains itself")
        return self.done[id(value)]

    def _make(self, value: Any) -> Any:
        if isinstance(value, _Record) and hasattr(value, "resolve"):
            return value.resolve(self)
        if isinstance(value, dict):
            return {self(key): self._named(key, item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self(item) for item in value)
        raise UnsafePickle(f"holds a {type(value).__name__.strip('_')}; expected arrays, numbers and text")

    def _named(self, key: Any, item: Any) -> Any:
        try:
            return self(item)
        except _NotHere as error:
            raise _NotHere(f"{_line(str(key))}: {error}") from None


def _is_shape(shape: Any) -> bool:
    return isinstance(shape, tuple) and all(type(n) is int and 0 <= n < 2**31 for n in shape)


def _numbers(data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    """Raw bytes to an array of its own; ValueError where counts do not agree."""
    if isinstance(data, str):  # Python 2's bytes
        data = data.encode("latin1")
    if not (isinstance(dtype, _DType) and isinstance(data, bytes) and _is_shape(shape) and order in ("C", "F")):
        raise UnsafePickle("an array that is not made of plain numbers")
    kind, count = dtype.numpy(), int(np.prod(shape, dtype=object))
    if len(data) != count * kind.itemsize:
        raise ValueError(f"an array of shape {shape} with {len(data)} bytes; expected {count * kind.itemsize}")
    return np.frombuffer(data, kind).astype(kind.newbyteorder("=")).reshape(shape, order=order)
