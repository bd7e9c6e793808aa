"""A 256-byte sketch of a model's clean weights, from which the kinship of another model is estimated.

A signature works on models grown from the ancestor it was made from, and not on strangers of the same
shape. A count-sketch keeps inner products: the cosine of two sketches estimates the cosine of the weights
(standard error about 1/16 for unrelated weights). Bucket and sign of every weight come from the raw PCG64
stream seeded by the tensor's name, which numpy promises never to change. docs/SPEC.md, section 8.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Callable

import numpy as np
import torch

from rws_hub.names import Layout
from rws_hub.spec import Sketch

SIZE = 256
# The first elements of a tensor are as good as all of them, and bound the cost on any model.
MAX_ELEMENTS = 2**18


def sketch(layout: Layout, rows: Callable[[str, int, int], torch.Tensor]) -> Sketch:
    """Sketch the tensors of `layout` (canonical names) that have more than one axis longer than 1.

    Args:
        layout: names and shapes.
        rows: returns rows [start, stop) of axis 0 of one of them.
    """
    total = np.zeros(SIZE)
    for name, shape in sorted(layout.items()):
        if sum(d > 1 for d in shape) <= 1:
            continue
        needed = min(shape[0], -(-MAX_ELEMENTS // math.prod(shape[1:])))
        flat = rows(name, 0, needed).reshape(-1)[:MAX_ELEMENTS].to("cpu", torch.float64).numpy()
        norm = float(np.linalg.norm(flat))
        if norm and math.isfinite(norm):
            # Every tensor counts by its size, not by the scale of its weights.
            total += _count_sketch(name, flat) * (math.sqrt(flat.size) / norm)
    largest = float(np.abs(total).max())
    levels = np.round(total * (127 / largest)).astype(np.int8) if largest else np.zeros(SIZE, np.int8)
    return Sketch("countsketch-256-v1", base64.b64encode(levels.tobytes()).decode())


def similarity(a: Sketch, b: Sketch) -> float:
    """Estimated cosine of the two models' clean weights, -1 to 1; 0 when either sketch is empty."""
    x, y = (np.frombuffer(base64.b64decode(s.values), np.int8).astype(np.float64) for s in (a, b))
    norms = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(x @ y) / norms if norms else 0.0


def _count_sketch(name: str, flat: np.ndarray) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    raw = np.random.PCG64(seed).random_raw(flat.size)
    buckets = (raw & np.uint64(SIZE - 1)).astype(np.int64)
    signs = 1.0 - 2.0 * ((raw >> np.uint64(8)) & np.uint64(1)).astype(np.float64)
    return np.bincount(buckets, weights=flat * signs, minlength=SIZE)
