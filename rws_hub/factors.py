"""A wide delta as the product of two thin matrices of whole numbers (docs/SPEC.md, section 5).

Element (i, j) is the sum over components c of 2^shift_c * left_ic * right_cj, times the step. All these sums are whole
numbers below 2^24, so that a matrix product in float32 is exact in whatever order a machine takes it, fused or not.
"""

from __future__ import annotations

import torch

from rws_hub.errors import CorruptArtifactError

# A code lies between -TOP and TOP, so that it has few enough bits for any arithmetic that a matrix product may take.
TOP = 127
# Whole numbers up to here are float32, and so are all sums on the way to them.
EXACT = 2**24
_MAX_SHIFT = 24
# Elements worked on at a time.
_BLOCK = 2**16
# A norm is told by the factors alone if so much of it is left when components have cancelled each other.
_LEFT_OVER = 1e-4
# No product of a step with such a number overflows.
MAX_STEP = 2.0**103


def parts(name: str, stream: torch.Tensor, shifts: torch.Tensor, outputs: int) -> dict[str, torch.Tensor]:
    """What a reader makes of the stored codes of one tensor.

    Args:
        name: of the tensor.
        stream: uint8 [r * (m + n)], code + TOP: of each component the m codes of its outputs, then those of its inputs.
        shifts: uint8 [r].
        outputs: m.

    Returns:
        "factors" and "shifts" as given; "left", float32 [m, r], with the shifts, and "right", float32 [r, n], of which
        the codes are the product; "largest", which none of them exceeds; and room for "squares", which is empty until
        somebody asks for it: loading takes no time.

    Raises:
        CorruptArtifactError: what no encoder writes.
    """
    if int(stream.max()) > 2 * TOP:
        raise CorruptArtifactError(f"{name}: a factor holds a code outside of +-{TOP}")
    codes = stream.view(len(shifts), -1)
    sides = codes[:, :outputs], codes[:, outputs:]
    sizes = _largest(sides[0]) * _largest(sides[1])
    if not bool((sizes > 0).all()) or int(shifts.max()) > _MAX_SHIFT:
        raise CorruptArtifactError(f"{name}: a component is zero, or shifted by more than {_MAX_SHIFT} bits")
    scales = (1 << shifts.long()).double()  # whole numbers, which no machine's exp2 need know
    largest = (sizes * scales).sum()
    if float(largest) > EXACT:
        raise CorruptArtifactError(f"{name}: the product of its factors could reach {largest:,.0f}; at most {EXACT:,}")
    left = _numbers(sides[0].T).mul_(scales.float())
    unknown = torch.empty(0, dtype=torch.float64, device="cpu")
    made = {"left": left, "right": _numbers(sides[1]), "largest": largest, "squares": unknown}
    return {"factors": stream, "shifts": shifts, **made}


def read(left: torch.Tensor, right: torch.Tensor, start: int, out: torch.Tensor) -> None:
    """Write the codes from element `start` on, row-major, into `out` (float32 [n], on any device), exactly.

    No more is computed than is written, and nothing is computed anywhere else: a row may be longer than any block.

    Args:
        left: as in `parts`.
        right: as in `parts`.
        start: the first element.
        out: what is written, never -0.0.
    """
    if not out.is_cpu and torch.are_deterministic_algorithms_enabled():
        # There CUDA refuses every product, or asks for settings made before; no order of sums could change this one.
        there = torch.empty(out.shape, dtype=torch.float32, device="cpu")
        read(left, right, start, there)
        out.copy_(there)
        return
    length, done = right.shape[1], 0
    while done < out.numel():
        row, column = divmod(start + done, length)
        rows = 1 if column else max(1, (out.numel() - done) // length)
        count = min(length - column, out.numel() - done)
        own = out[done : done + rows * count].view(rows, count)
        # With `out=` a product stays in float32 under autocast, too.
        torch.mm(left[row : row + rows].to(out.device), right[:, column : column + count].to(out.device), out=own)
        done += own.numel()
    out.add_(0.0)  # a sum of products that are all -0.0 may be -0.0


def squares(left: torch.Tensor, right: torch.Tensor, shifts: torch.Tensor) -> float:
    """The sum of the squares of all codes, to about six digits, everything being as in `parts`.

    Mostly it follows from the factors. Where components cancel each other, as those of no encoder do, there would be
    rounding errors left of it, and whoever asks how far a signature moves a model must not be told of those.
    """
    grams = _gram(left, 1 << shifts.long()), _gram(right.T, torch.ones_like(shifts))
    found = float(torch.mul(*grams).sum())
    apart = float(torch.mul(*(gram.diagonal() for gram in grams)).sqrt().sum()) ** 2
    if found > _LEFT_OVER * apart:
        return found
    total, found = len(left) * right.shape[1], 0.0
    block = torch.empty(min(_BLOCK, total), dtype=torch.float32, device="cpu")
    for start in range(0, total, _BLOCK):
        own = block[: total - start]
        read(left, right, start, own)
        found += float(own.double().square_().sum())
    return found


def _gram(side: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Products of all pairs of columns, float64 [r, r]; in float32, which is quicker, where that is exact."""
    if float((side.double().square().sum(0) / scales.double().square()).max()) > EXACT:
        return torch.mm(side.double().T, side.double())
    gram = torch.empty(len(scales), len(scales), dtype=torch.float32, device="cpu")
    return torch.mm(side.T, side, out=gram).double()


def _largest(side: torch.Tensor) -> torch.Tensor:
    """The magnitude of the largest code of every component; stored ones, uint8 [r, n] -> float64 [r]."""
    return torch.maximum(side.amax(1).double() - TOP, TOP - side.amin(1).double())


def _numbers(stored: torch.Tensor) -> torch.Tensor:
    """Codes as float32, in memory of their own."""
    return torch.empty(stored.shape, dtype=torch.float32, device="cpu").copy_(stored).sub_(TOP)
