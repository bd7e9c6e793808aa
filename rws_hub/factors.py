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
        the codes are the product; "largest", which none of them exceeds, and "squares", the sum of their squares.

    Raises:
        CorruptArtifactError: what no encoder writes.
    """
    rank = len(shifts)
    if bool((stream > 2 * TOP).any()):
        raise CorruptArtifactError(f"{name}: a factor holds a code outside of +-{TOP}")
    codes = (stream.view(rank, -1).to(torch.int16) - TOP).float()
    left, right = codes[:, :outputs], codes[:, outputs:]
    sizes = left.abs().amax(1).double() * right.abs().amax(1)
    if not bool((sizes > 0).all()) or int(shifts.max()) > _MAX_SHIFT:
        raise CorruptArtifactError(f"{name}: a component is zero, or shifted by more than {_MAX_SHIFT} bits")
    scales = torch.exp2(shifts.double())
    largest = float(sizes @ scales)
    if largest > EXACT:
        raise CorruptArtifactError(f"{name}: the product of its factors could reach {largest:,.0f}; at most {EXACT:,}")
    left = (left.T * scales.float()).contiguous()
    right = right.contiguous()
    squares = torch.mm(left.T, left).double().mul_(torch.mm(right, right.T)).sum()
    made = {"left": left, "right": right, "largest": torch.tensor(largest), "squares": squares}
    return {"factors": stream, "shifts": shifts, **made}


def read(left: torch.Tensor, right: torch.Tensor, start: int, out: torch.Tensor) -> None:
    """Write the codes from element `start` on, row-major, into `out` (float32 [n], on any device), exactly.

    Args:
        left: as in `parts`.
        right: as in `parts`.
        start: the first element.
        out: what is written, never -0.0.
    """
    length, stop = right.shape[1], start + out.numel()
    first, last = start // length, -(-stop // length)
    rows, columns = left[first:last].to(out.device), right.to(out.device)
    # With `out=` a product stays in float32 under autocast, too.
    if stop - start == (last - first) * length:
        torch.mm(rows, columns, out=out.view(last - first, length))
    else:
        whole = torch.empty(last - first, length, dtype=torch.float32, device=out.device)
        torch.mm(rows, columns, out=whole)
        out.copy_(whole.view(-1)[start - first * length :][: stop - start])
    out.add_(0.0)  # a sum of products that are all -0.0 may be -0.0
