"""One zstd frame (RFC 8878) whose decompressed size is known beforehand, so that no bomb can go off."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from rws_hub.errors import CorruptArtifactError
from rws_hub.spec import Data

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_LEVEL = 19
# Searching more bytes than this for what hardly repeats takes minutes (docs/DECISIONS.md, 2026-11-21).
_LARGE, _FAST_LEVEL = 2**26, 1
# Bytes of a frame that are decompressed at a time.
_BLOCK = 2**20
_MAGIC = (0xFD2FB528).to_bytes(4, "little")
# Shorter repetitions take more to say than what they repeat: in codes they are chance.
_MIN_MATCH = 6
# Bytes from which on a part is worth the statistics of its own that a new block begins with.
_OWN_BLOCK = 2**12
# The largest window that a reader of zstd has to support by default.
_WINDOW_LOG = 27


def compress(parts: Iterable[bytes | memoryview], size: int, level: int | None = None) -> bytearray:
    """A frame of all parts one after the other, `size` bytes together. Same zstd, same bytes.

    Parts are expected to differ in their statistics: a large one shares no block with another. `level` is zstd's;
    where nothing is said it follows from the size.
    """
    parameter = zstd.CompressionParameter
    options: dict[int, int] = {
        parameter.compression_level: level or (_LEVEL if size <= _LARGE else _FAST_LEVEL),
        parameter.min_match: _MIN_MATCH,
        parameter.content_size_flag: 1,
        parameter.checksum_flag: 0,
    }
    compressor = zstd.ZstdCompressor(options=options)
    compressor.set_pledged_input_size(size)
    frame = bytearray()
    for part in parts:
        own = len(part) >= _OWN_BLOCK
        if own:
            frame += compressor.flush(compressor.FLUSH_BLOCK)
        frame += compressor.compress(part)
        if own:
            frame += compressor.flush(compressor.FLUSH_BLOCK)
    frame += compressor.flush()
    return frame


def decompress(frame: Data, size: int, where: str) -> bytearray:
    """The contents of a frame that holds exactly `size` bytes.

    Raises:
        CorruptArtifactError: no frame, another size, or anything behind it.
    """
    if bytes(frame[:4]) != _MAGIC:  # zstd would skip a frame of another kind without a word
        raise CorruptArtifactError(f"{where}: the compressed codes do not begin as a zstd frame does")
    view, done, at = memoryview(frame), 0, 0
    try:
        if (window := _window(frame)) > 1 << _WINDOW_LOG:  # zstd looks at it only where it needs one
            raise CorruptArtifactError(f"{where}: the compressed codes ask for a window of {window:,} bytes")
        stated = zstd.get_frame_info(frame).decompressed_size
        if stated != size:
            found = "no size" if stated is None else f"{stated:,} bytes"
            raise CorruptArtifactError(f"{where}: the compressed codes state {found}, the shapes need {size:,} bytes")
        data = bytearray(size)
        decompressor = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _WINDOW_LOG})
        while at < len(view) and not decompressor.eof:
            # A frame can hold more than it states; then it is not at its end after `size` bytes.
            part = decompressor.decompress(view[at : at + _BLOCK], max_length=min(size - done, _BLOCK))
            data[done : done + len(part)] = part
            done, at = done + len(part), at + _BLOCK
            while part and not decompressor.needs_input and not decompressor.eof:
                part = decompressor.decompress(b"", max_length=min(size - done, _BLOCK))
                data[done : done + len(part)] = part
                done += len(part)
    except zstd.ZstdError as error:
        raise CorruptArtifactError(f"{where}: the compressed codes are damaged ({error})") from error
    if done != size or at < len(view) or not decompressor.eof or decompressor.unused_data:
        raise CorruptArtifactError(f"{where}: the compressed codes are cut off, or something follows them")
    return data


def _window(frame: Data) -> int:
    """Bytes of the window that a frame asks for; 0 where it is as large as the contents."""
    if len(frame) < 6 or frame[4] & 0x20:
        return 0
    return (8 + (frame[5] & 7)) << ((frame[5] >> 3) + 7)
