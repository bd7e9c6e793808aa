"""One zstd frame, and nothing that only looks like one."""

import json
import random
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rws_hub.errors import CorruptArtifactError
from rws_hub.frames import compress, decompress, zstd

BLOCK = 2**17  # of zstd, at most
DATA = bytes(i % 7 for i in range(1000))
FRAME = compress([DATA], len(DATA))


@settings(deadline=None)
@given(st.lists(st.binary(max_size=300) | st.integers(0, 5000).map(bytes), max_size=4))
def test_what_is_compressed_comes_back(parts):
    data = b"".join(parts)
    frame = compress(parts, len(data))
    assert compress([memoryview(p) for p in parts], len(data)) == frame
    assert decompress(memoryview(frame), len(data), "here") == data


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK])
@pytest.mark.parametrize("data", [bytes, random.Random(0).randbytes], ids=["zeros", "noise"])
def test_sizes_at_the_edges_of_zstd_s_own_blocks(data, size):
    whole = data(size)
    assert decompress(compress([whole], size), size, "here") == whole
    assert decompress(compress([whole[:BLOCK], whole[BLOCK:]], size), size, "here") == whole


def drawn(letters, count, seed):
    return bytes(random.Random(seed).choices(letters, k=count))


def test_large_parts_of_other_statistics_stand_alone_and_small_ones_share_theirs():
    parts = [drawn(b"ab", 60_000, 0), drawn(b"abcdefgh", 5000, 1), drawn(b"ijkl", 20_000, 2)]
    alone = sum(len(compress([part], len(part))) for part in parts)
    assert len(compress(parts, 85_000)) < 1.05 * alone < 0.91 * len(compress([b"".join(parts)], 85_000))
    small = [drawn(b"abcdefgh", 100, seed) for seed in range(200)]
    assert len(compress(small, 20_000)) <= len(compress([b"".join(small)], 20_000))


def other(options=None, data=DATA):
    return zstd.compress(data, options=options)


def by_hand(size, blocks, window=27, dictionary=b""):
    """A frame that states the size of its contents and of its window, 2^27 bytes, whatever its blocks hold."""
    start = bytes([0x80 | len(dictionary), (window - 10) << 3]) + dictionary
    return b"\x28\xb5\x2f\xfd" + start + size.to_bytes(4, "little") + blocks


def zeros(*sizes):
    """Blocks of zeros, four bytes each."""
    last = len(sizes) - 1
    return b"".join((n << 3 | 1 << 1 | (i == last)).to_bytes(3, "little") + b"\0" for i, n in enumerate(sizes))


GIGABYTE = zeros(*[BLOCK] * 2**13)
REFUSED = {
    "another size": (zstd.compress(DATA + b"\0"), "state 1,001 bytes, the shapes need 1,000 bytes"),
    "a smaller size": (zstd.compress(DATA[:-1]), "state 999 bytes"),
    "no size": (zstd.compress(DATA, options={zstd.CompressionParameter.content_size_flag: 0}), "state no size"),
    "a byte less": (FRAME[:-1], "cut off, or something follows"),
    "a byte more": (FRAME + b"\0", "cut off, or something follows"),
    "another frame": (FRAME + zstd.compress(b""), "cut off, or something follows"),
    "half a header": (FRAME[:5], "damaged"),
    "nothing": (b"", "do not begin as a zstd frame"),
    "no frame": (b"PK\x03\x04" + bytes(99), "do not begin as a zstd frame"),
    "a frame to be skipped": (b"\x50\x2a\x4d\x18" + bytes(4) + FRAME, "do not begin as a zstd frame"),
    "a dictionary that nobody has": (by_hand(1000, zeros(1000), dictionary=b"\7"), "damaged"),
    "less than it states": (by_hand(1000, zeros(999)), "damaged"),
    "more than it states": (by_hand(1000, zeros(999, 2)), "damaged"),
    "much more than it states": (by_hand(1000, GIGABYTE), "damaged"),
    "what it states, and that is much": (by_hand(2**30, GIGABYTE), "state 1,073,741,824 bytes, the shapes need 1,000"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_frame_is_refused(case):
    frame, message = REFUSED[case]
    with pytest.raises(CorruptArtifactError, match=message) as caught:
        decompress(frame, len(DATA), "here")
    assert str(caught.value).startswith("here: the compressed codes ")


@pytest.mark.skipif(sys.platform == "win32", reason="no resource module")
def test_a_bomb_takes_no_memory():
    script = (
        "import json, resource, sys; from rws_hub.frames import decompress\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        "for frame in json.load(sys.stdin):\n"
        "    try: print(len(decompress(bytes.fromhex(frame), 1000, 'here')))\n"
        "    except ValueError: print('refused')\n"
        "print(peak() - before)"
    )
    frames = [by_hand(1000, zeros(1000)), by_hand(1000, GIGABYTE), by_hand(2**30, GIGABYTE)]
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=json.dumps([f.hex() for f in frames]),
        capture_output=True,
        text=True,
        check=True,
    )
    *found, growth = done.stdout.split()
    assert found == ["1000", "refused", "refused"]
    assert int(growth) < 16 * 2**10  # KiB, or bytes where that is the custom


@pytest.mark.parametrize("block", [1, 2, 3, 7])
@pytest.mark.parametrize("size", [0, 1, BLOCK + 1])
def test_how_much_is_decompressed_at_a_time_decides_nothing(size, block, monkeypatch):
    whole = (b"codes" * size)[:size]
    frame = compress([whole, b""], size)
    monkeypatch.setattr("rws_hub.frames._BLOCK", block)
    assert decompress(frame, size, "here") == whole
    for broken in (frame[:-1], frame + b"\0", frame + frame):
        with pytest.raises(CorruptArtifactError):
            decompress(broken, size, "here")


def test_parts_are_asked_for_one_at_a_time():
    seen = []

    def parts():
        for i in range(3):
            seen.append(i)
            yield bytes(10)

    assert decompress(compress(parts(), 30), 30, "here") == bytes(30)
    assert seen == [0, 1, 2]


def test_what_is_large_is_not_searched_for_long(monkeypatch):
    data = bytes(random.Random(0).choices(range(7), [1, 2, 4, 8, 4, 2, 1], k=100_000))
    searched = compress([data], len(data))
    monkeypatch.setattr("rws_hub.frames._LARGE", len(data) - 1)
    quick = compress([data], len(data))
    assert quick != searched == compress([data], len(data), level=19)
    assert decompress(quick, len(data), "here") == decompress(searched, len(data), "here") == data


@pytest.mark.parametrize("size", [2**20 - 1, 2**20, 2**20 + 1, 3 * 2**20])
@pytest.mark.parametrize("checksum", [0, 1])
def test_contents_of_several_blocks_come_back_whole(size, checksum):
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    frame = zstd.compress(data, options={zstd.CompressionParameter.checksum_flag: checksum})
    assert bytes(decompress(frame, size, "")) == data
    assert bytes(decompress(bytes(compress([bytes(size)], size)), size, "")) == bytes(size)


def test_a_window_beyond_the_limit_is_refused_though_zstd_would_not_need_it():
    data = bytes(300)
    block = (len(data) << 3 | 1).to_bytes(3, "little") + data
    frame = bytes.fromhex("28b52ffd80") + bytes([0xA0]) + len(data).to_bytes(4, "little") + block
    assert zstd.decompress(frame) == data
    with pytest.raises(CorruptArtifactError, match="ask for a window of 1,073,741,824 bytes"):
        decompress(frame, len(data), "x")
