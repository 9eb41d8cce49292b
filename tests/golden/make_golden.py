"""
Write the stores of this folder anew, with the release that is imported:

    python tests/golden/make_golden.py tests/golden/pykv-0.1

Done once for each release that changes what is on disk, and its result committed; what an earlier
release wrote stays as it is. Beside each store stands a JSON of what must be read from it. The
keydir is not kept: it belongs to one boot of one machine. Zeros at the end of the active segment
are cut off, as a power cut may do, so that the files stay small.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

import pykv

FAR = 3_000_000_000  # seconds: 95 years
EXPIRED = {b"expired", b"batch expired"}
Contents = dict[bytes, bytes]


def lose_keydir(path: Path) -> None:
    """As a reboot does. The next open seals the segment, however short it is, and begins another."""
    (path / "keydir").unlink()


def write_all_kinds(db: pykv.Store, model: Contents) -> None:
    """Every kind of record that a write can make."""

    def put(key: bytes, value: bytes, ttl: float | None = None) -> None:
        db.put(key, value, ttl=ttl)
        model[key] = value

    put(b"single", b"one record")
    put(b"overwritten", b"first")
    put(b"overwritten", b"second")
    put(b"", b"the empty key")
    put(b"empty value", b"")
    put(b"long key " * 300, b"a key of 2,700 bytes")
    put(b"longer than a page", bytes(range(256)) * 20)
    put(bytes(range(256)), b"every byte")
    put(b"lives long", b"expiry in a far future", ttl=FAR)
    put(b"expired", b"gone at once", ttl=0.001)
    put(b"deleted", b"?")
    del db[b"deleted"]
    del model[b"deleted"]
    model[b"counter"] = str(db.incr(b"counter", 41) + db.incr(b"counter") - 41).encode()
    with db.batch() as batch:
        batch[b"batch one"] = b"1"
        batch[b"batch two"] = b"22"
        batch.put(b"batch lives long", b"333", ttl=FAR)
        batch.put(b"batch expired", b"gone", ttl=0.001)
        del batch[b"single"]
    model |= {b"batch one": b"1", b"batch two": b"22", b"batch lives long": b"333"}
    model |= {b"batch expired": b"gone"}
    del model[b"single"]
    db.sync()
    put(b"after a sync", b"behind a MARK")


def write_more(db: pykv.Store, model: Contents, number: int) -> None:
    """What later segments hold: new keys, and the ends of old ones."""
    for i in range(3):
        key = b"segment %d key %d" % (number, i)
        db[key] = model[key] = b"%d" % (number * i) * 50
    db[b"overwritten"] = model[b"overwritten"] = b"in segment %d" % number
    if number == 2:
        with db.batch() as batch:
            batch[b"single"] = model[b"single"] = b"it is back"
            del batch[b"batch one"]
        del model[b"batch one"]


def wait_for_checkpoint(db: pykv.Store, version: int) -> None:
    for _ in range(500):
        if db.stats().checkpoint_version >= version:
            return
        db.sync()
        time.sleep(0.01)
    raise SystemExit("no checkpoint was written")


def make(path: Path) -> Contents:
    """A store of some segments, with a checkpoint; it ends in a kill if the caller copies it open."""
    model: Contents = {}
    for number in range(5):
        with pykv.open(path, segment_bytes=64 << 10) as db:
            if number == 0:
                write_all_kinds(db, model)
            else:
                write_more(db, model, number)
            if number == 4:  # each segment counts as a whole one: by now a checkpoint is due
                wait_for_checkpoint(db, 1)
        lose_keydir(path)
    return model


def keep(path: Path, target: Path, model: Contents, **more: object) -> None:
    """Copy the files that count, and write down what is in them."""
    target.mkdir(parents=True)
    active = max(path.glob("segment-*"))
    for file in sorted(path.iterdir()):
        if file.name in ("keydir", "lock", "reserve"):
            continue
        data = file.read_bytes()
        (target / file.name).write_bytes(data.rstrip(b"\0") + bytes(64) if file == active else data)
    contents = {key.hex(): value.hex() for key, value in model.items() if key not in EXPIRED}
    expected = {"release": pykv.__version__, "expired": len(EXPIRED & model.keys()), **more}
    text = json.dumps(expected | {"contents": contents}, indent=1, sort_keys=True)
    target.with_suffix(".json").write_text(text + "\n")


def make_long(path: Path) -> tuple[Contents, int]:
    """A value with chunks, alone and in a batch."""
    value = bytes(range(256)) * 257
    model = {b"small %d" % n: b"%d" % n for n in range(20)} | {b"in a batch": value}
    with pykv.open(path) as db:
        db.put_many(model)
        db[b"alone"] = model[b"alone"] = value[::-1]
        return model, db.stats().version


def main(folder: Path) -> None:
    """Closed, killed, and each of these with damage; one of long values."""
    if folder.exists():
        raise SystemExit(f"{folder} is there already: what a release wrote is not changed")
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "long"
        model, version = make_long(path)
        keep(path, folder / "long", model, version=version)

        path = Path(scratch) / "closed"
        model = make(path)
        with pykv.open(path) as db:
            db[b"last"] = model[b"last"] = b"before the close"
            version = db.stats().version
        keep(path, folder / "closed", model, version=version)

        with pykv.open(path) as db:
            db.put(b"durable", b"synced", durable=True)
            model[b"durable"] = b"synced"
            for i in range(3):
                db[b"process %d" % i] = model[b"process %d" % i] = b"not synced"
            killed = Path(scratch) / "killed"
            shutil.copytree(path, killed, ignore=shutil.ignore_patterns("*.tmp", "keydir", "lock"))
            keep(killed, folder / "killed", model, version=db.stats().version)

        # The last record torn: the log ends before it, without a word.
        active = max(killed.glob("segment-*"))
        data = active.read_bytes().rstrip(b"\0")
        active.write_bytes(data[:-8])
        del model[b"process 2"]
        keep(killed, folder / "torn", model, version=version + 3)

        # A byte of a sealed segment flipped: refused, with its place; with repair all but that key.
        sealed = sorted(killed.glob("segment-*"))[0]
        data = bytearray(sealed.read_bytes())
        at = data.index(b"every byte")
        data[at] ^= 1
        sealed.write_bytes(data)
        for checkpoint in killed.glob("checkpoint-*"):
            checkpoint.unlink()
        del model[bytes(range(256))]
        offset = (at - 256 - 24) // 16 * 16
        keep(killed, folder / "damaged", model, damage={"path": sealed.name, "offset": offset})


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]))
