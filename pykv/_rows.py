"""
_rows.py -- many results of one call, made Python objects in one step.

The engine lays the results end to end and writes beside them a struct format such as "16s100s16s";
struct.unpack() then makes all the bytes objects in one C loop, about 15 ns each.
"""

from __future__ import annotations

import struct

from pykv._core import ffi, lib
from pykv.errors import OutOfMemoryError

ROWS_KEPT_SIZE = 1 << 20  # bytes: larger results are not kept for reuse


class Rows:
    """A `struct pykv_rows`: the results of one call at a time, reusable."""

    __slots__ = ("_format", "_size", "_unpack", "data_size", "pointer")

    def __init__(self) -> None:
        pointer = lib.pykv_rows_new()
        if pointer == ffi.NULL:
            raise OutOfMemoryError("no memory for results")
        self.pointer = ffi.gc(pointer, lib.pykv_rows_free)
        self.data_size = 0  # bytes of the newest results
        self._size = ffi.new("size_t *")
        self._format = b""
        self._unpack = struct.Struct(b"").unpack

    def fields(self) -> tuple[bytes, ...]:
        """Return the results as private copies; an absent key's is b""."""
        size = self._size
        text = lib.pykv_rows_format(self.pointer, size)
        layout = ffi.buffer(text, size[0])[:]
        if layout != self._format:  # sizes often repeat from call to call
            self._unpack = struct.Struct(layout).unpack
            self._format = layout
        data = lib.pykv_rows_data(self.pointer, size)
        self.data_size = size[0]
        return self._unpack(ffi.buffer(data, self.data_size))

    def missing(self) -> list[int]:
        """Return the positions of the absent keys, ascending."""
        positions = lib.pykv_rows_missing(self.pointer, self._size)
        count = self._size[0]
        return ffi.unpack(positions, count) if count else []
