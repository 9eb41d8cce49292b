"""
Where the numbers in test_hash.c come from: SipHash written a second time, from its paper.

The paper publishes a vector of SipHash-2-4 only. So the function below takes the counts of rounds,
is held to that vector, and to CPython, whose own hash of bytes is SipHash-1-3 with a key of zeros
when PYTHONHASHSEED is 0; then the table in test_hash.c has to agree with it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

WORD = 0xFFFFFFFFFFFFFFFF


def rotate(word: int, count: int) -> int:
    return (word << count | word >> (64 - count)) & WORD


def siphash(key: bytes, message: bytes, compression_rounds: int, final_rounds: int) -> int:
    """Return SipHash-c-d of *message*: section 2 of the paper, step by step."""
    k = [int.from_bytes(key[i : i + 8], "little") for i in (0, 8)]
    constants = b"somepseudorandomlygeneratedbytes"
    v = [int.from_bytes(constants[i : i + 8], "big") ^ k[i // 8 % 2] for i in range(0, 32, 8)]

    def rounds(count: int) -> None:
        for _ in range(count):
            for a, b, c, d, left, right in (0, 1, 2, 3, 13, 16), (2, 1, 0, 3, 17, 21):
                v[a] = (v[a] + v[b]) & WORD
                v[c] = (v[c] + v[d]) & WORD
                v[b] = rotate(v[b], left) ^ v[a]
                v[d] = rotate(v[d], right) ^ v[c]
                v[a] = rotate(v[a], 32)

    size = len(message)
    padded = message + bytes(7 - size % 8) + bytes([size % 256])
    for i in range(0, len(padded), 8):
        word = int.from_bytes(padded[i : i + 8], "little")
        v[3] ^= word
        rounds(compression_rounds)
        v[0] ^= word
    v[2] ^= 0xFF
    rounds(final_rounds)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def test_it_gives_the_vector_of_the_paper() -> None:
    """Appendix A: key 00 01 ... 0f, message 00 01 ... 0e, SipHash-2-4."""
    assert siphash(bytes(range(16)), bytes(range(15)), 2, 4) == 0xA129CA6149BE45E5


@pytest.mark.skipif(sys.hash_info.algorithm != "siphash13", reason="another hash in this Python")
def test_it_agrees_with_cpython() -> None:
    """With PYTHONHASHSEED=0 CPython's hash of bytes is SipHash-1-3 under a key of zeros."""
    program = "print(*(hash(bytes(range(size))) for size in range(1, 64)))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    theirs = [int(word) & WORD for word in done.stdout.split()]
    assert theirs == [siphash(bytes(16), bytes(range(size)), 1, 3) for size in range(1, 64)]


def test_the_table_in_the_c_test_agrees() -> None:
    """Entry n is SipHash-1-3 of 00 01 ... (n bytes) under the key 00 01 ... 0f."""
    source = (Path(__file__).parent / "test_hash.c").read_text()
    table = [int(word, 16) for word in re.findall(r"UINT64_C\((0x[0-9A-F]{16})\)", source)]
    key = bytes(range(16))
    assert table == [siphash(key, bytes(range(size)), 1, 3) for size in range(64)]
