"""The content-addressed store behind Xet: files are lists of chunks, and chunks live in "xorbs".

Only what is needed to serve uploads and downloads of the client's native code is read from its binary
formats. All numbers in them are little-endian.
"""

import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path


@dataclass(frozen=True)
class Term:
    """A run of chunks of one xorb; `stop` is exclusive."""

    xorb: str
    start: int
    stop: int


@dataclass(frozen=True)
class XetFile:
    """A file as the concatenation of its terms."""

    hash: str
    size: int
    terms: tuple[Term, ...]


@dataclass(frozen=True)
class Chunk:
    """Where one chunk lies in its xorb: header of 8 bytes, then `packed` bytes."""

    offset: int
    packed: int
    scheme: int
    size: int

    @property
    def end(self) -> int:
        """Offset of the first byte after the chunk."""
        return self.offset + 8 + self.packed


def hash_text(raw: bytes) -> str:
    """A Xet hash as text: four 64-bit numbers, each as 16 hexadecimal digits."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", raw))


def parse_shard(shard: bytes) -> list[tuple[XetFile, str | None]]:
    """The files that a shard registers, with their sha256 where given."""
    files: list[tuple[XetFile, str | None]] = []
    position = 48
    while True:
        name, flags, count = struct.unpack_from("<32sII", shard, position)
        position += 48
        if name == b"\xff" * 32:
            return files
        size, terms = 0, []
        for _ in range(count):
            xorb, _, length, start, stop = struct.unpack_from("<32s4I", shard, position)
            terms.append(Term(hash_text(xorb), start, stop))
            size += length
            position += 48
        if flags >> 31 & 1:  # verification hashes, one per term
            position += 48 * count
        digest = None
        if flags >> 30 & 1:
            digest = hash_text(shard[position : position + 32])
            position += 48
        files.append((XetFile(hash_text(name), size, tuple(terms)), digest))


def parse_xorb(xorb: bytes) -> tuple[Chunk, ...]:
    """The chunks of a xorb; a footer, which does not begin with a zero byte, ends them."""
    chunks: list[Chunk] = []
    position = 0
    while position + 8 <= len(xorb) and xorb[position] == 0:
        packed = int.from_bytes(xorb[position + 1 : position + 4], "little")
        size = int.from_bytes(xorb[position + 5 : position + 8], "little")
        chunks.append(Chunk(position, packed, xorb[position + 4], size))
        position = chunks[-1].end
    return tuple(chunks)


def unpack(xorb: bytes, chunk: Chunk) -> bytes:
    """The content of a chunk. Schemes: 0 raw, 1 LZ4, 2 LZ4 over bytes grouped by position modulo 4."""
    data = xorb[chunk.offset + 8 : chunk.end]
    if chunk.scheme:
        import lz4.frame  # type: ignore[import-untyped]  # only for chunks that compress

        data = lz4.frame.decompress(data)
    if chunk.scheme == 2:
        grouped, spread, position = data, bytearray(len(data)), 0
        for index in range(4):
            count = len(range(index, len(grouped), 4))
            spread[index::4] = grouped[position : position + count]
            position += count
        data = bytes(spread)
    if len(data) != chunk.size:
        raise ValueError(f"a chunk of {chunk.size} bytes unpacks to {len(data)}")
    return data


class XetStore:
    """Xorbs, in a folder, and the files made of them."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._files: dict[str, XetFile] = {}
        self._by_digest: dict[str, XetFile] = {}
        self.chunks = lru_cache(maxsize=256)(self._chunks)

    def clear(self) -> None:
        """Forget all files, but not xorbs: the client remembers what it has sent, and sends it once."""
        self._files.clear()
        self._by_digest.clear()

    def add_xorb(self, name: str, data: bytes) -> bool:
        """Keep a xorb; whether it is new."""
        path = self._folder / name
        new = not path.exists()
        path.write_bytes(data)
        return new

    def xorb(self, name: str) -> bytes:
        """The bytes of a xorb, as uploaded."""
        return (self._folder / name).read_bytes()

    def _chunks(self, name: str) -> tuple[Chunk, ...]:
        return parse_xorb(self.xorb(name))

    def add_shard(self, shard: bytes) -> None:
        """Register the files of a shard."""
        for file, digest in parse_shard(shard):
            self._files[file.hash] = file
            if digest is not None:
                self._by_digest[digest] = file

    def file(self, name: str) -> XetFile | None:
        """A file by its Xet hash."""
        return self._files.get(name)

    def file_of(self, digest: str | None) -> XetFile | None:
        """A file by the sha256 of its content."""
        return None if digest is None else self._by_digest.get(digest)

    def content(self, file: XetFile) -> bytes:
        """The whole file, for clients that do not use Xet."""
        parts = []
        for term in file.terms:
            xorb = self.xorb(term.xorb)
            parts += [unpack(xorb, chunk) for chunk in self.chunks(term.xorb)[term.start : term.stop]]
        return b"".join(parts)
