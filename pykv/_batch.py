"""
_batch.py -- many writes and preconditions, applied wholly or not at all.

A batch only takes notes, as bytes, and hands them to the engine in one call when its `with` block
ends; until then nothing is written, and an exception in the block drops the notes.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple, Self

from pykv._buffers import Buffer, as_bytes, expiry_ms, key_bytes
from pykv._core import lib
from pykv.errors import ClosedError, ConflictError, InvalidError

VERSION_MAX = (1 << 64) - 1

PUT = lib.PYKV_PUT
DELETE = lib.PYKV_DELETE
EXPECT_PRESENT = lib.PYKV_EXPECT_PRESENT
EXPECT_ABSENT = lib.PYKV_EXPECT_ABSENT
EXPECT_VALUE = lib.PYKV_EXPECT_VALUE
EXPECT_VERSION = lib.PYKV_EXPECT_VERSION
EXPECT_UNCHANGED = lib.PYKV_EXPECT_UNCHANGED
EXPECT_PREFIX_UNCHANGED = lib.PYKV_EXPECT_PREFIX_UNCHANGED

_DEMANDS = {
    EXPECT_PRESENT: "is not present",
    EXPECT_ABSENT: "is not absent",
    EXPECT_VALUE: "has not the expected value",
    EXPECT_VERSION: "has not the expected version",
}


class Written(NamedTuple):
    """What became of a batch."""

    applied: bool  # whether all preconditions held
    failed: int  # else the position of the first that did not
    deleted: int  # keys that its deletes removed
    version: int  # that it was given


class Batch:
    """
    Writes that happen together. Made by `Store.batch`, used with `with`, by one thread.

    Operations are applied in their order: of several on one key the last wins. Preconditions are
    judged against the store as it was before the batch, wherever in it they stand. Buffers are
    copied when they are noted, so they may change afterwards.

    Attributes:
        version: The version that the batch was given, once it is applied; before, None.

    >>> with db.batch() as batch:
    ...     batch[b"user:1"] = b"Ada"
    ...     del batch[b"user:0"]
    ...     batch.expect_absent(b"user:1")
    >>> db[b"user:1"]
    b'Ada'

    Source: `pykv_write` in csrc/pykv.h; csrc/format.md.
    """

    __slots__ = ("_level", "_notes", "_write", "version")

    def __init__(self, write: Callable[..., Written], level: int) -> None:
        self._write: Callable[..., Written] | None = write  # of the store; None: ended
        self._level = level
        self._notes: list[tuple[int, bytes, bytes, int]] = []  # (op, key, value, number)
        self.version: int | None = None

    # ---- Writes ----

    def __setitem__(self, key: Buffer, value: Buffer) -> None:
        """Store *value* under *key*."""
        self._note(PUT, key, value)

    def __delitem__(self, key: Buffer) -> None:
        """Remove *key*; an absent key is no error here: see `expect_present`."""
        self._note(DELETE, key)

    def put(self, key: Buffer, value: Buffer, *, ttl: float | None = None) -> None:
        """
        Store *value* under *key*.

        Args:
            key: 0 to 65,535 bytes.
            value: 0 to 4,294,967,295 bytes.
            ttl: Seconds from now after which the key is gone; None: never.
        Raises:
            KeySizeError: *key* is too long.
        """
        self._note(PUT, key, value, expiry_ms(ttl))

    def delete(self, key: Buffer) -> None:
        """Remove *key*; an absent key is no error."""
        self._note(DELETE, key)

    # ---- Preconditions: if one does not hold, the batch raises ConflictError ----

    def expect_present(self, key: Buffer) -> None:
        """Apply the batch only if *key* is present."""
        self._note(EXPECT_PRESENT, key)

    def expect_absent(self, key: Buffer) -> None:
        """Apply the batch only if *key* is absent."""
        self._note(EXPECT_ABSENT, key)

    def expect_value(self, key: Buffer, value: Buffer) -> None:
        """Apply the batch only if *key* is present with the very bytes of *value*."""
        self._note(EXPECT_VALUE, key, value)

    def expect_version(self, key: Buffer, version: int) -> None:
        """
        Apply the batch only if *key* was not written since.

        Args:
            key: 0 to 65,535 bytes.
            version: As `Store.get_with_version` told it; 0: the key is absent.
        """
        if not 0 <= version <= VERSION_MAX:
            raise InvalidError(f"a version is between 0 and {VERSION_MAX}, not {version}")
        self._note(EXPECT_VERSION, key, number=version)

    # ---- The end ----

    def __len__(self) -> int:
        """Return the number of operations and preconditions noted."""
        return len(self._notes)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Apply the batch; after an exception, drop it."""
        write, self._write = self._write, None
        if write is None or kind is not None or not self._notes:
            return
        ops, keys, values, numbers = zip(*self._notes, strict=True)
        written = write(ops, keys, values, numbers, self._level)
        if not written.applied:
            key = keys[written.failed]
            conflict = ConflictError(f"key {key!r} {_DEMANDS[ops[written.failed]]}")
            conflict.key = key
            raise conflict
        self.version = written.version

    def __reduce__(self) -> Any:
        raise TypeError(f"{self!r} can be neither copied nor pickled")

    def __repr__(self) -> str:
        state = "open" if self._write is not None else "ended"
        return f"<pykv.Batch, {state}, operations: {len(self._notes):,}>"

    def _note(self, op: int, key: Buffer, value: Buffer = b"", number: int = 0) -> None:
        if self._write is None:
            raise ClosedError("the batch has ended: begin another with db.batch()")
        self._notes.append((op, key_bytes(key), as_bytes(value, "value"), number))
