"""Ranges of safetensors files against the library's own reading."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from rws_hub import CheckpointError
from rws_hub.tensor_files import FLOATS, read_elements, read_entries, read_rows


def tensors():
    generator = torch.Generator().manual_seed(0)
    shapes = {"wide": (5, 3, 2), "vector": (7,), "scalar": (), "empty": (0, 4)}
    found = {}
    for key, dtype in FLOATS.items():
        found |= {f"{key}.{n}": torch.randn(s, generator=generator).to(dtype) for n, s in shapes.items()}
    return found | {"count": torch.tensor(3), "é": torch.ones(2)}


def test_entries_are_those_of_the_file_in_the_order_of_their_bytes(tmp_path):
    file = tmp_path / "a.safetensors"
    save_file(tensors(), file, {"format": "pt"})
    entries, data, end = read_entries(file), file.read_bytes(), None
    assert {n: e.shape for n, e in entries.items()} == {n: tuple(t.shape) for n, t in tensors().items()}
    for name, entry in entries.items():
        tensor = tensors()[name]
        assert data[entry.start : entry.stop] == tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
        assert FLOATS.get(entry.dtype, torch.int64) == tensor.dtype
        assert end is None or entry.start == end
        end = entry.stop
    assert end == len(data)


def test_elements_and_rows_are_those_of_the_library(tmp_path):
    file = tmp_path / "a.safetensors"
    save_file(tensors(), file)
    entries, whole = read_entries(file), load_file(file)
    for name, tensor in whole.items():
        if tensor.is_floating_point():
            rows = tensor.shape[0] if tensor.ndim else 1
            assert torch.equal(read_rows(file, entries[name], 0, rows), tensor)
            assert read_rows(file, entries[name], 0, rows).dtype == tensor.dtype
    for key in FLOATS:
        entry, wide = entries[f"{key}.wide"], whole[f"{key}.wide"]
        assert torch.equal(read_rows(file, entry, 2, 4), wide[2:4])
        assert torch.equal(read_elements(file, entry, 5, 12), wide.reshape(-1)[5:17])


@pytest.mark.parametrize("data", [b"", b"\x08\0\0\0\0\0\0\0nonsense", b"\xff" * 40], ids=["empty", "text", "long"])
def test_what_is_no_safetensors_is_refused_by_name(tmp_path, data):
    file = tmp_path / "broken.safetensors"
    file.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"broken\.safetensors: not a readable safetensors file"):
        read_entries(file)
    with pytest.raises(CheckpointError, match=r"missing\.safetensors: not a readable safetensors file"):
        read_entries(tmp_path / "missing.safetensors")


def test_a_file_that_is_cut_off_or_goes_away_while_it_is_read_is_refused(tmp_path):
    file = tmp_path / "a.safetensors"
    save_file({"w": torch.ones(64)}, file)
    entry = read_entries(file)["w"]
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match="changed while it was read"):
        read_elements(file, entry, 0, 64)
    assert torch.equal(read_elements(file, entry, 0, 63), torch.ones(63))
    with pytest.raises(CheckpointError, match="not a readable"):
        read_entries(file)
    file.unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_elements(file, entry, 0, 1)
