"""One zstd frame (RFC 8878) whose decompressed size is known beforehand, so that no bomb can go off."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from rws_hub.errors import CorruptArtifactError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_LEVEL = 19
_MAGIC = (0xFD2FB528).to_bytes(4, "little")
# Shorter repetitions take more to say than what they repeat: in codes they are chance.
_MIN_MATCH = 6
# Bytes from which on a part is worth the statistics of its own that a new block begins with.
_OWN_BLOCK = 2**12
# The largest window that a reader of zstd has to support by default.
_WINDOW_LOG = 27


def compress(parts: Iterable[bytes | memoryview], size: int) -> bytes:
    """A frame of all parts one after the other, `size` bytes together. Same zstd, same bytes.

    Parts are expected to differ in their statistics: a large one shares no block with another.
    """
    parameter = zstd.CompressionParameter
    options: dict[int, int] = {
        parameter.compression_level: _LEVEL,
        parameter.min_match: _MIN_MATCH,
        parameter.content_size_flag: 1,
        parameter.checksum_flag: 0,
    }
    compressor = zstd.ZstdCompressor(options=options)
    compressor.set_pledged_input_size(size)
    out = []
    for part in parts:
        own = len(part) >= _OWN_BLOCK
        if own:
            out.append(compressor.flush(compressor.FLUSH_BLOCK))
        out.append(compressor.compress(part))
        if own:
            out.append(compressor.flush(compressor.FLUSH_BLOCK))
    return b"".join([*out, compressor.flush()])


def decompress(frame: bytes | memoryview, size: int, where: str) -> bytes:
    """The contents of a frame that holds exactly `size` bytes.

    Raises:
        CorruptArtifactError: no frame, another size, or anything behind it.
    """
    if bytes(frame[:4]) != _MAGIC:  # zstd would skip a frame of another kind without a word
        raise CorruptArtifactError(f"{where}: the compressed codes do not begin as a zstd frame does")
    try:
        stated = zstd.get_frame_info(frame).decompressed_size
        if stated != size:
            found = "no size" if stated is None else f"{stated:,} bytes"
            raise CorruptArtifactError(f"{where}: the compressed codes state {found}, the shapes need {size:,} bytes")
        decompressor = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _WINDOW_LOG})
        data = decompressor.decompress(frame, max_length=size)
    except zstd.ZstdError as error:
        raise CorruptArtifactError(f"{where}: the compressed codes are damaged ({error})") from error
    if len(data) != size or not decompressor.eof or decompressor.unused_data:
        raise CorruptArtifactError(f"{where}: the compressed codes are cut off, or something follows them")
    return data
