"""
pykv: an embedded, persistent, log-structured key-value store, used like a dict.

>>> import pykv
>>> with pykv.open("example.kv") as db:  # a directory, created if missing
...     db[b"greeting"] = b"hello"
...     db.get(b"greeting"), db.get(b"absent")
(b'hello', None)

`open` is the way in; `Store` has the rest. Failures are under `Error`: see pykv.errors.
"""

try:
    from pykv._core import ffi as _ffi
    from pykv._core import lib as _lib
except ImportError as error:
    if isinstance(error, ModuleNotFoundError) and error.name == "pykv._core":
        raise ImportError(
            f"pykv is not compiled in {__path__[0]}: run Python in another directory, if pykv is"
            " installed, or compile it here: pip install -e .",
            name=error.name,
        ) from error
    if "subinterpreter" not in str(error):
        raise
    raise ImportError(
        "pykv cannot be imported in an isolated sub-interpreter, which cffi does not support: use"
        " threads or processes, any number of which share a store"
    ) from error

from pykv._backup import Backup, Repair, repair, restore
from pykv._batch import Batch
from pykv._open import open
from pykv._snapshot import Snapshot
from pykv._stats import Damage, Report, Stats
from pykv._store import Store
from pykv._streams import ValueWriter
from pykv._transaction import Transaction
from pykv.errors import (
    AccessError,
    BufferSizeError,
    BusyError,
    ClosedError,
    ConflictError,
    CorruptError,
    Error,
    InvalidError,
    KeySizeError,
    MissingError,
    NewerFormatError,
    NotANumberError,
    NotAStoreError,
    NotBytesError,
    OutOfMemoryError,
    ReadOnlyError,
    SnapshotLostError,
    StorageError,
    StoreFullError,
    SyncFailedError,
    ValueSizeError,
)

__version__: str = _ffi.string(_lib.pykv_version_string()).decode()

__all__ = [
    "AccessError",
    "Backup",
    "Batch",
    "BufferSizeError",
    "BusyError",
    "ClosedError",
    "ConflictError",
    "CorruptError",
    "Damage",
    "Error",
    "InvalidError",
    "KeySizeError",
    "MissingError",
    "NewerFormatError",
    "NotANumberError",
    "NotAStoreError",
    "NotBytesError",
    "OutOfMemoryError",
    "ReadOnlyError",
    "Repair",
    "Report",
    "Snapshot",
    "SnapshotLostError",
    "Stats",
    "StorageError",
    "Store",
    "StoreFullError",
    "SyncFailedError",
    "Transaction",
    "ValueSizeError",
    "ValueWriter",
    "open",
    "repair",
    "restore",
]
