"""The method in a few lines of float64 numpy, written from its definition and sharing no code with the package."""

import numpy as np
import torch


def rws(standard: torch.Tensor, robust: torch.Tensor, pretrained: torch.Tensor | None) -> np.ndarray:
    """The projected difference of one parameter; the plain one without `pretrained`, or where nothing moved."""
    clean, strong = (t.detach().double().numpy() for t in (standard, robust))
    if pretrained is None:
        return strong - clean
    start = pretrained.detach().double().numpy()
    a, p = clean - start, strong - start
    length = np.sum(a * a)
    return p - (np.sum(a * p) / length) * a if length > 0 else strong - clean


def log_ratio(standard: torch.Tensor, robust: torch.Tensor) -> np.ndarray:
    """What a running variance is multiplied by, as a logarithm."""
    return np.log(robust.double().numpy() / standard.double().numpy())


def relative(found: torch.Tensor, expected: np.ndarray) -> float:
    """||found - expected|| / ||expected||."""
    return float(np.linalg.norm(found.double().numpy() - expected) / np.linalg.norm(expected))
