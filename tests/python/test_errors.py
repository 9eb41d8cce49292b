"""Each failure is an exception of its own, under pykv.Error and a builtin cousin."""

from __future__ import annotations

import errno
import io
import os
import pickle
import re
from pathlib import Path

import pytest

import pykv
from pykv import errors
from pykv._core import lib

HEADER = Path(__file__).parents[2] / "csrc" / "pykv.h"

COUSINS: dict[type[pykv.Error], tuple[type[Exception], int | None]] = {
    pykv.StorageError: (OSError, errno.EIO),
    pykv.CorruptError: (OSError, errno.EBADMSG),
    pykv.OutOfMemoryError: (MemoryError, errno.ENOMEM),
    pykv.StoreFullError: (OSError, errno.ENOSPC),
    pykv.InvalidError: (ValueError, None),
    pykv.KeySizeError: (ValueError, None),
    pykv.ValueSizeError: (ValueError, None),
    pykv.BufferSizeError: (ValueError, None),
    pykv.NotBytesError: (TypeError, None),
    pykv.ClosedError: (ValueError, None),
    pykv.ReadOnlyError: (io.UnsupportedOperation, errno.EROFS),
    pykv.NotAStoreError: (NotADirectoryError, errno.ENOTDIR),
    pykv.NewerFormatError: (NotImplementedError, None),
    pykv.MissingError: (FileNotFoundError, errno.ENOENT),
    pykv.SyncFailedError: (OSError, errno.EIO),
    pykv.BusyError: (OSError, errno.EBUSY),
    pykv.NotANumberError: (ValueError, None),
    pykv.AccessError: (PermissionError, errno.EACCES),
    pykv.ConflictError: (RuntimeError, None),
    pykv.SnapshotLostError: (RuntimeError, None),
}


def fill(db: pykv.Store) -> int:
    """Write until the store is full; return how many writes were acknowledged."""
    acknowledged = 0
    with pytest.raises(pykv.StoreFullError) as caught:
        for n in range(100_000):
            db[b"%d" % n] = b"%d" % n * 200
            acknowledged += 1
    assert caught.value.errno == errno.ENOSPC
    return acknowledged


def flip(file: Path, content: bytes) -> int:
    """Flip one bit of *content* inside *file*; return where it stands."""
    whole = file.read_bytes()
    position = whole.index(content)
    with file.open("r+b") as opened:
        opened.seek(position)
        opened.write(bytes([content[0] ^ 1]))
    return position


@pytest.mark.parametrize("cls", COUSINS)
def test_each_class_has_a_cousin(cls: type[pykv.Error]) -> None:
    """Each error is a pykv.Error and a builtin exception, with a fitting errno."""
    cousin, number = COUSINS[cls]
    assert issubclass(cls, pykv.Error)
    assert issubclass(cls, cousin)
    error = cls("what happened", path="p")
    assert error.errno == number
    assert str(error) == "what happened"
    assert error.path == "p"
    assert error.offset is None
    assert error.status == cls.status != 0
    assert cls.__doc__


def test_every_class_is_listed() -> None:
    """The table of cousins above has every class, and the package exports each."""
    classes = {
        value
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, pykv.Error) and name[0] != "_"
    }
    assert classes == {*COUSINS, pykv.Error}
    assert all(getattr(pykv, cls.__name__) is cls for cls in classes)
    assert {cls.__name__ for cls in classes} <= set(pykv.__all__)


def test_every_status_has_a_class() -> None:
    """Each failing status of pykv.h, and the conflict, is the status of some class."""
    names = re.findall(r"^    (PYKV_\w+) = -\d+,", HEADER.read_text(), re.MULTILINE)
    assert len(names) > 10
    for name in names:
        error = errors.failure(getattr(lib, name))
        assert type(error) is not pykv.Error, name
        assert error.status == getattr(lib, name)
    assert pykv.ConflictError.status == lib.PYKV_CONFLICT


def test_os_errors_look_like_those_of_python() -> None:
    """An error that is an OSError has its strerror and filename too."""
    error = pykv.StorageError("cannot read it", errno=errno.EMFILE, path="f", offset=16)
    assert isinstance(error, OSError)
    assert (error.errno, error.strerror, error.filename) == (errno.EMFILE, "cannot read it", "f")
    assert error.offset == 16


@pytest.mark.parametrize("cls", COUSINS)
def test_errors_can_be_pickled(cls: type[pykv.Error]) -> None:
    """An error keeps its type and attributes on its way to another process."""
    error = cls("message", errno=5, path="p", offset=7)
    error.key = b"k"  # type: ignore[attr-defined]
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is cls
    assert str(copy) == "message"
    assert (copy.errno, copy.path, copy.offset, copy.key) == (5, "p", 7, b"k")


def test_sizes_can_be_pickled() -> None:
    """The size of a refused key travels with its error."""
    copy = pickle.loads(pickle.dumps(pykv.KeySizeError(70_000)))
    assert copy.size == 70_000
    assert "70,000" in str(copy)


def test_a_value_beyond_the_format() -> None:
    """The error for a value of more than 4 GiB names both sizes."""
    assert "4,294,967,295" in str(pykv.ValueSizeError(2**32))
    assert "4,294,967,296" in str(pykv.ValueSizeError(2**32))


@pytest.mark.parametrize("flag", ["r", "w"])
def test_missing(path: Path, flag: str) -> None:
    """Without "c" or "n", a store that is not there is a FileNotFoundError; nothing is made."""
    with pytest.raises(pykv.MissingError, match=re.escape(str(path))) as caught:
        pykv.open(path, flag)  # type: ignore[arg-type]
    assert caught.value.errno == errno.ENOENT
    assert not path.exists()
    path.mkdir()
    with pytest.raises(pykv.MissingError):
        pykv.open(path, flag)  # type: ignore[arg-type]
    assert list(path.iterdir()) == []


@pytest.mark.parametrize("flag", ["r", "w", "c", "n"])
def test_missing_parent(path: Path, flag: str) -> None:
    """A store is not made in a directory that is not there."""
    with pytest.raises(FileNotFoundError):
        pykv.open(path / "deeper", flag)  # type: ignore[arg-type]
    assert not path.exists()


@pytest.mark.parametrize("flag", ["r", "w", "c", "n"])
def test_a_file_in_place_of_the_directory(path: Path, flag: str) -> None:
    """A file at the path is refused, and left as it was."""
    path.write_bytes(b"precious")
    with pytest.raises(pykv.NotAStoreError, match=re.escape(str(path))) as caught:
        pykv.open(path, flag)  # type: ignore[arg-type]
    assert caught.value.errno == errno.ENOTDIR
    assert path.read_bytes() == b"precious"


@pytest.mark.parametrize("flag", ["c", "n"])
def test_foreign_files(path: Path, flag: str) -> None:
    """A directory that holds files of others is refused, and left as it was."""
    path.mkdir()
    (path / "thesis.txt").write_bytes(b"precious")
    with pytest.raises(pykv.NotAStoreError):
        pykv.open(path, flag)  # type: ignore[arg-type]
    assert [file.name for file in path.iterdir()] == ["thesis.txt"]
    assert (path / "thesis.txt").read_bytes() == b"precious"


def test_flag_new_empties(path: Path) -> None:
    """Flag "n" begins anew over an old store."""
    with pykv.open(path) as db:
        db[b"k"] = b"v"
    with pykv.open(path, "n") as db:
        assert len(db) == 0
        db[b"k"] = b"w"
    with pykv.open(path, "w") as db:
        assert dict(db) == {b"k": b"w"}


def test_read_only(path: Path) -> None:
    """A store opened with "r" reads, and refuses each way of writing."""
    with pykv.open(path) as db:
        db[b"k"] = b"1"
    with pykv.open(path, "r") as db:
        assert db[b"k"] == b"1"
        batch = db.batch()
        batch[b"k"] = b"2"
        for write in (
            lambda: db.__setitem__(b"k", b"2"),
            lambda: db.put(b"k", b"2"),
            lambda: db.delete(b"k"),
            lambda: db.put_many({b"k": b"2"}),
            lambda: db.delete_many([b"k"]),
            lambda: db.put_if_absent(b"l", b"2"),
            lambda: db.compare_and_set(b"k", b"1", b"2"),
            lambda: db.incr(b"k"),
            lambda: db.pop(b"k"),
            lambda: db.popitem(),
            lambda: db.setdefault(b"l", b"2"),
            lambda: db.update({b"k": b"2"}),
            lambda: db.clear(),
            lambda: batch.__exit__(None, None, None),
        ):
            with pytest.raises(pykv.ReadOnlyError):
                write()
        assert dict(db) == {b"k": b"1"}


def test_full(path: Path) -> None:
    """At its limit a store refuses writes with ENOSPC, and keeps what it acknowledged."""
    with pykv.open(path, max_disk_bytes=1 << 20, segment_bytes=1 << 16) as db:
        acknowledged = fill(db)
        assert acknowledged > 100
        assert len(db) == acknowledged
        assert all(db[b"%d" % n] == b"%d" % n * 200 for n in range(acknowledged))
        with pytest.raises(pykv.StoreFullError), db.batch() as batch:
            for n in range(1_000):
                batch[b"batch:%d" % n] = b"x" * 1_000
        assert len(db) == acknowledged
    with pykv.open(path) as db:
        assert len(db) == acknowledged
        db[b"room"] = b"again"


def test_damage_to_a_value(path: Path) -> None:
    """A damaged record is a CorruptError that tells file and offset; the others stay readable."""
    content = b"the value to be damaged"
    with pykv.open(path) as db:
        db[b"before"] = b"1"
        db[b"k"] = content
        db[b"after"] = b"2"
        (file,) = [file for file in path.iterdir() if content in file.read_bytes()]
        position = flip(file, content)
        with pytest.raises(pykv.CorruptError) as caught:
            db[b"k"]
        error = caught.value
        assert error.path == file.name
        assert error.offset is not None
        assert 0 < position - error.offset < 64
        assert error.offset % 16 == 0
        assert file.name in str(error)
        assert str(error.offset) in str(error)
        for read in (
            lambda: db.get(b"k"),
            lambda: db.get_many([b"before", b"k"]),
            lambda: db.get_with_version(b"k"),
            lambda: db.get_into(b"k", bytearray(100)),
            lambda: db.view(b"k"),
            lambda: b"k" in db,
            lambda: db.contains_many([b"k"]),
        ):
            with pytest.raises(pykv.CorruptError):
                read()
        assert db[b"before"] == b"1"
        assert db[b"after"] == b"2"
        assert b"absent" not in db

        report = db.verify()
        assert not report.ok
        assert report.damage_count == 1
        (damage,) = report.damage
        assert damage.path == file.name
        assert damage.offset == error.offset
        assert damage.size > 0


def test_damage_met_by_a_scan(path: Path) -> None:
    """An iteration that meets damage raises, and the store goes on."""
    content = b"the value to be damaged"
    with pykv.open(path) as db:
        db.put_many((b"%d" % n, b"v") for n in range(100))
        db[b"k"] = content
        for file in path.iterdir():
            if content in file.read_bytes():
                flip(file, content)
        with pytest.raises(pykv.CorruptError):
            list(db.items())
        db[b"k"] = b"repaired"
        assert len(dict(db.items())) == 101


def test_damage_met_at_open(path: Path) -> None:
    """Without the keydir, damage before the durable point stops open(), but not with repair."""
    content = b"the value to be damaged"
    with pykv.open(path) as db:
        db[b"before"] = b"1"
        db[b"k"] = content
        db[b"after"] = b"2"
        db.sync()
    for file in path.iterdir():
        if content in file.read_bytes():
            position = flip(file, content)
            name = file.name
        elif not file.name.startswith("segment-"):
            file.unlink()
    with pytest.raises(pykv.CorruptError) as caught:
        pykv.open(path)
    assert caught.value.path == name
    assert caught.value.offset is not None
    assert 0 < position - caught.value.offset < 64
    with pykv.open(path, repair=True) as db:
        assert db[b"before"] == b"1"
        assert db[b"after"] == b"2"
        assert db.stats().damaged_records == 1


def test_damage_that_a_checkpoint_leads_to(path: Path) -> None:
    """A repair goes on without it, once and for all: the key is gone, and verify() finds all whole."""
    values = {b"first": b"the first to be damaged", b"second": b"the second to be damaged"}

    def damage(key: bytes) -> None:
        for file in path.glob("segment-*"):
            if values[key] in file.read_bytes():
                flip(file, values[key])
        (path / "keydir").unlink()

    with pykv.open(path) as db:
        db.update(values)
        db.put_many({b"%d" % n: b"x" for n in range(100)})
    damage(b"first")
    with pykv.open(path, repair=True) as db:
        assert db.stats().checkpoint_version > 0  # a repair ends with one
        assert len(db) == 101
    damage(b"second")
    with pykv.open(path) as db, pytest.raises(pykv.CorruptError):
        db[b"second"]
    with pykv.open(path, repair=True) as db:
        assert b"second" not in db
        assert len(db) == len(dict(db.items())) == 100
        assert db.stats().damaged_records == 1
        assert db.verify().ok
    (path / "keydir").unlink()
    with pykv.open(path) as db:
        assert len(db) == 100
        assert db.verify().ok


def crc32c(content: bytes) -> int:
    """CRC-32C, bit by bit."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def test_newer_format(path: Path) -> None:
    """A store of a later format is refused, and left as it was."""
    with pykv.open(path) as db:
        db[b"k"] = b"v"
    for file in path.iterdir():
        if file.name.startswith("segment-"):
            with file.open("r+b") as opened:
                header = bytearray(opened.read(128))
                header[8:12] = (99).to_bytes(4, "little")
                header[124:128] = crc32c(bytes(header[:124])).to_bytes(4, "little")
                opened.seek(0)
                opened.write(header)
        else:
            file.unlink()
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    for flag in ("r", "w", "c", "n"):
        with pytest.raises(pykv.NewerFormatError):
            pykv.open(path, flag)
    after = {file.name: file.read_bytes() for file in path.iterdir() if file.name in before}
    assert after == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_no_permission(tmp_path: Path) -> None:
    """A directory that may not be read, or written to, is a PermissionError."""
    if os.geteuid() != 0:
        pytest.skip("needs to begin as root, to give rights up")
    closed, parent = tmp_path / "closed.kv", tmp_path / "parent"
    with pykv.open(closed) as db:
        db[b"k"] = b"v"
    parent.mkdir(mode=0o755)
    for directory in (tmp_path, *tmp_path.parents):
        if directory.stat().st_uid == 0 and directory != Path("/tmp"):
            if not directory.is_relative_to("/tmp"):
                break
            directory.chmod(directory.stat().st_mode | 0o055)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgid(65_534)
            os.setuid(65_534)
            refused = 0
            for path, flag in ((closed, "r"), (closed, "w"), (parent / "new.kv", "c")):
                try:
                    pykv.open(path, flag)  # type: ignore[arg-type]
                except pykv.AccessError as error:
                    refused += error.errno == errno.EACCES
            code = 0 if refused == 3 else 2
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_files_are_private(path: Path) -> None:
    """A store's directory is 0700 and its files 0600 whatever the umask, unless *mode* says so."""
    before = os.umask(0)
    try:
        with pykv.open(path) as db:
            db[b"k"] = b"v"
            assert path.stat().st_mode & 0o777 == 0o700
            assert {file.stat().st_mode & 0o777 for file in path.iterdir()} == {0o600}
        os.umask(0o077)
        wide = path.with_name("wide.kv")
        with pykv.open(wide, mode=0o640) as db:
            db[b"k"] = b"v"
            assert wide.stat().st_mode & 0o777 == 0o750
            assert {file.stat().st_mode & 0o777 for file in wide.iterdir()} == {0o640}
    finally:
        os.umask(before)


def modes(path: Path) -> dict[str, int]:
    """The permission bits of each file of a store."""
    return {file.name: file.stat().st_mode & 0o777 for file in path.iterdir()}


@pytest.mark.parametrize("lost", [(), ("lock",), ("keydir",), ("lock", "keydir")])
def test_a_shared_store_stays_shared(path: Path, lost: tuple[str, ...]) -> None:
    """Who opens a store, or empties it, leaves its files the mode that it was made with."""
    with pykv.open(path, mode=0o660) as db:
        db[b"k"] = b"v"
    for name in lost:
        (path / name).unlink()
    for flag in ("c", "w", "r", "n", "c"):
        with pykv.open(path, flag, segment_bytes=64 << 10) as db:  # type: ignore[arg-type]
            if flag != "r":
                db.update((b"%d" % n, b"x" * 1_000) for n in range(200))
        assert set(modes(path).values()) == {0o660}, flag


def test_a_mode_is_changed_from_outside(path: Path) -> None:
    """What chmod made of the files of a store counts from the next open on, and `mode` does not."""
    with pykv.open(path, mode=0o640) as db:
        db[b"k"] = b"v"
    for file in path.iterdir():
        file.chmod(0o660)
    with pykv.open(path, mode=0o600) as db:
        db[b"k"] = b"w"
    assert set(modes(path).values()) == {0o660}
