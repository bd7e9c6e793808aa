"""Which part of a tensor of model A could be which tensor of model B: by shape, then by words in the names.

The words only break ties; see `lockstep` for what is compared at all.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from rws_hub.cells import Shape
from rws_hub.spelling import same_shape

_MAX_CHUNKS = 4
_ROLES = {"q": 0, "query": 0, "k": 1, "key": 1, "v": 2, "value": 2}
_FUSED = {"qkv": ("q", "k", "v"), "kv": ("k", "v")}


@dataclass(frozen=True, slots=True)
class Pair:
    """One row block of a tensor of A is one row block of a tensor of B.

    Attributes:
        a, b: the names.
        a_part, b_part: (k, n): the k-th of n equal row blocks; (0, 1) is the whole tensor.
    """

    a: str
    a_part: tuple[int, int]
    b: str
    b_part: tuple[int, int]


@dataclass(slots=True)
class Pairing:
    """What has been paired so far between the tensors of A and of B."""

    a: Mapping[str, torch.Tensor]
    b: Mapping[str, torch.Tensor]
    pairs: list[Pair]
    use_roles: bool

    def taken(self, name: str) -> set[tuple[int, int]]:
        """The parts of a tensor of A that have a partner."""
        return {p.a_part for p in self.pairs if p.a == name}

    def is_open(self, b: str) -> bool:
        """Whether a tensor of B has no partner."""
        return all(p.b != b for p in self.pairs)

    def left(self, a: str) -> bool:
        """Whether some part of a tensor of A has no partner."""
        taken = self.taken(a)
        return not taken or len(taken) < next(iter(taken))[1]

    def propose(self, b: str, candidates: Sequence[str]) -> list[Pair]:
        """Partners for a tensor of B among tensors of A that met the same activations; empty if none fits."""
        shape = tuple(self.b[b].shape)
        found: list[tuple[tuple[int, ...], list[Pair]]] = []
        for order, a in enumerate(candidates):
            for part in self._parts(a, shape, b):
                rank = (int(not self._same_role(a, part, b)), int(_leaf(a) != _leaf(b)), part[1], order)
                found.append((rank, [Pair(a, part, b, (0, 1))]))
        if not found:
            return self._fused(b, shape, candidates)
        return min(found, key=lambda f: f[0])[1]

    def _parts(self, a: str, shape: Shape, b: str) -> list[tuple[int, int]]:
        """Parts of a tensor of A that could be a whole tensor of this shape; of several row blocks the next one."""
        own, taken = tuple(self.a[a].shape), self.taken(a)
        if not taken and (same_shape(own, shape) or is_flat(own, shape) or is_flat(shape, own)):
            return [(0, 1)]
        if not own or not shape or own[0] % shape[0] or own[1:] != shape[1:]:
            return []
        count = own[0] // shape[0]
        if not 2 <= count <= _MAX_CHUNKS or any(n != count for _, n in taken):
            return []
        free = [k for k in range(count) if (k, count) not in taken]
        named = [k for k in free if self.use_roles and self._role_of_part(a, (k, count)) == _role(b) is not None]
        return [(k, count) for k in (named or free)[:1]]

    def _fused(self, b: str, shape: Shape, candidates: Sequence[str]) -> list[Pair]:
        """Several whole tensors of A that are the row blocks of one tensor of B."""
        for count in range(2, _MAX_CHUNKS + 1):
            if not shape or shape[0] % count:
                continue
            rows = (shape[0] // count, *shape[1:])
            parts = [a for a in candidates if not self.taken(a) and tuple(self.a[a].shape) == rows]
            parts = [a for a in parts if _leaf(a) == _leaf(b)] if len(parts) > count else parts
            if len(parts) == count:
                if self.use_roles and {_role(a) for a in parts} >= set(range(3 - count, 3)):
                    parts.sort(key=lambda a: _role(a) or 0)
                return [Pair(a, (0, 1), b, (k, count)) for k, a in enumerate(parts)]
        return []

    def _same_role(self, a: str, part: tuple[int, int], b: str) -> bool:
        return not self.use_roles or _role(b) is None or self._role_of_part(a, part) in (None, _role(b))

    def _role_of_part(self, a: str, part: tuple[int, int]) -> int | None:
        """Query, key or value, by the words in a name."""
        k, count = part
        if count == 1:
            return _role(a)
        words = next((_FUSED[w] for w in reversed(_words(a)) if w in _FUSED), ("q", "k", "v")[3 - count :])
        return _ROLES[words[k]] if count == len(words) else None

    def take(self, pairs: Sequence[Pair]) -> None:
        """Accept pairs: B's tensors get A's values."""
        for pair in pairs:
            copy_part(self.a[pair.a], self.b[pair.b], pair)
            self.pairs.append(pair)


def is_flat(wide: Shape, flat: Shape) -> bool:
    """Whether one shape is a kernel of more than one place and the other the same rows as a matrix."""
    return (
        len(wide) == 4
        and len(flat) == 2
        and wide[0] == flat[0]
        and math.prod(wide[1:]) == flat[1]
        and not same_shape(wide, flat)
    )


def copy_part(source: torch.Tensor, target: torch.Tensor, pair: Pair) -> None:
    """Write the row block of A that a pair names into that of B, in place."""
    with torch.no_grad():
        block, home = block_of(source, pair.a_part), block_of(target, pair.b_part)
        home.copy_(block.reshape(home.shape))


def block_of(tensor: torch.Tensor, part: tuple[int, int]) -> torch.Tensor:
    """The k-th of n equal row blocks."""
    return tensor if part[1] == 1 else tensor.chunk(part[1])[part[0]]


def _words(name: str) -> list[str]:
    return re.split(r"[._]", name.lower())


def _role(name: str) -> int | None:
    return next((_ROLES[w] for w in reversed(_words(name)) if w in _ROLES), None)


def _leaf(name: str) -> str:
    return _words(name)[-1]
