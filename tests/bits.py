"""Weights as raw bits, the only way in which -0.0, NaN payloads and the last digit all count."""

import torch
from torch import nn

_INTEGER = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def bits_of(tensor: torch.Tensor) -> bytes:
    """The bytes of a tensor."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(_INTEGER[tensor.element_size()]).numpy().tobytes()


def bits(model: nn.Module) -> dict[str, bytes]:
    """The bytes of every parameter and persistent buffer."""
    return {name: bits_of(tensor) for name, tensor in model.state_dict(keep_vars=True).items()}


def changed(before: dict[str, bytes], model: nn.Module) -> set[str]:
    """Names of the tensors whose bits are not what they were."""
    after = bits(model)
    assert set(before) == set(after)
    return {name for name in before if before[name] != after[name]}


def plant_odd_values(tensor: torch.Tensor) -> None:
    """Put -0.0, subnormals, infinities and NaNs with a payload into the first elements."""
    exponent, mantissa = {
        torch.float16: (5, 10),
        torch.bfloat16: (8, 7),
        torch.float32: (8, 23),
        torch.float64: (11, 52),
    }[tensor.dtype]
    infinity = (2**exponent - 1) << mantissa
    sign = 1 << (exponent + mantissa)
    patterns = [
        sign,
        1,
        2,
        sign | 3,
        infinity,
        sign | infinity,
        infinity | 5,
        sign | infinity | 1 << (mantissa - 1) | 9,
    ]
    width = 8 * tensor.element_size()
    signed = [p - (1 << width) if p >= 1 << (width - 1) else p for p in patterns]
    with torch.no_grad():
        flat = tensor.detach().view(_INTEGER[tensor.element_size()]).view(-1)
        flat[: len(signed)] = torch.tensor(signed, dtype=flat.dtype)
