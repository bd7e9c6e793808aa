"""`rws apply`: what lies on disk afterwards is what a live patch gives, and everything else is untouched."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from builders import tiny_resnet, tiny_signature, tiny_vit
from published import files_of, fog
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from rws_hub import CheckpointError, IncompatibleModelError, PatchStateError, patch
from rws_hub.apply import apply_to_checkpoint
from rws_hub.judging import Terms
from rws_hub.tensor_files import read_entries

METADATA = {"format": "pt", "made_by": "a person", "é": "ü"}


def save_sharded(model: nn.Module, folder: Path) -> Path:
    """The model in three shards with an index, as large checkpoints come."""
    folder.mkdir()
    state = {n: t.contiguous() for n, t in model.state_dict().items()}
    names = sorted(state)
    weight_map = {}
    for i in range(3):
        shard = f"model-{i + 1:05}-of-00003.safetensors"
        part = names[i::3]
        save_file({n: state[n] for n in part}, folder / shard, {"shard": str(i)})
        weight_map |= dict.fromkeys(part, shard)
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text('{"architecture": "resnet18"}')
    (folder / "notes.txt").write_text("not taken along")
    return folder


def same_bits(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    def raw(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.contiguous().reshape(-1).view(torch.uint8)

    return found.keys() == expected.keys() and all(
        found[n].dtype == t.dtype and found[n].shape == t.shape and torch.equal(raw(found[n]), raw(t))
        for n, t in expected.items()
    )


def patched_state(model: nn.Module, *signatures: object, alpha: float | tuple[float, ...]) -> dict[str, torch.Tensor]:
    with patch(model, *signatures, alpha=alpha):  # type: ignore[arg-type]
        return {n: t.clone() for n, t in model.state_dict().items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("alpha", [1.0, -0.3, 0.0])
def test_one_file(tmp_path: Path, dtype: torch.dtype, alpha: float) -> None:
    model = tiny_resnet().to(dtype)
    source, out = tmp_path / "model.safetensors", tmp_path / "new" / "patched.safetensors"
    save_file(model.state_dict(), source, METADATA)
    before = source.read_bytes()
    plan = apply_to_checkpoint(source, [fog()], [alpha], out)
    assert plan.ok and source.read_bytes() == before
    assert same_bits(load_file(out), patched_state(model, fog(), alpha=alpha))
    touched = {b.model for b in plan.signatures[0].bindings}
    found = load_file(out)
    assert touched == set(fog().names) and same_bits(
        {n: t for n, t in found.items() if n not in touched},
        {n: t for n, t in model.state_dict().items() if n not in touched},
    )
    with safe_open(out, framework="pt") as handle:
        assert handle.metadata() == METADATA
    assert sorted(p.name for p in out.parent.iterdir()) == ["patched.safetensors"]


@pytest.mark.parametrize("named", ["folder", "index"])
def test_shards(tmp_path: Path, named: str) -> None:
    source = save_sharded(tiny_resnet(), tmp_path / "model")
    before = files_of(source)
    given = source if named == "folder" else source / "model.safetensors.index.json"
    out = tmp_path / "out"
    apply_to_checkpoint(given, [fog()], [0.7], out)
    found = files_of(out)
    assert found.keys() == before.keys() - {"notes.txt"}
    assert {n: d for n, d in found.items() if n.endswith(".json")} == {
        n: d for n, d in before.items() if n.endswith(".json")
    }
    shards = [f for f in sorted(out.iterdir()) if f.suffix == ".safetensors"]
    state: dict[str, torch.Tensor] = {}
    for i, shard in enumerate(shards):
        assert load_file(shard).keys() == load_file(source / shard.name).keys()
        state |= load_file(shard)
        with safe_open(shard, framework="pt") as handle:
            assert handle.metadata() == {"shard": str(i)}
    assert same_bits(state, patched_state(tiny_resnet(), fog(), alpha=0.7))
    assert files_of(source) == before


def test_a_folder_of_one_file(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    save_file(tiny_vit().state_dict(), tmp_path / "m" / "model.safetensors")
    (tmp_path / "m" / "config.json").write_text("{}")
    signature = tiny_signature("vit")
    apply_to_checkpoint(tmp_path / "m", [signature], [1.0], tmp_path / "out")
    assert sorted(files_of(tmp_path / "out")) == ["config.json", "model.safetensors"]
    expected = patched_state(tiny_vit(), signature, alpha=1.0)
    assert same_bits(load_file(tmp_path / "out" / "model.safetensors"), expected)


def test_several_signatures_in_any_order(tmp_path: Path) -> None:
    source = tmp_path / "model.safetensors"
    save_file(tiny_resnet().state_dict(), source)
    noise = tiny_signature(corruption="noise", seed=5)
    apply_to_checkpoint(source, [fog(), noise], [0.5, 0.25], tmp_path / "a.safetensors")
    apply_to_checkpoint(source, [noise, fog()], [0.25, 0.5], tmp_path / "b.safetensors")
    expected = patched_state(tiny_resnet(), fog(), noise, alpha=(0.5, 0.25))
    assert same_bits(load_file(tmp_path / "a.safetensors"), expected)
    assert same_bits(load_file(tmp_path / "b.safetensors"), expected)
    with pytest.raises(PatchStateError, match="given twice"):
        apply_to_checkpoint(source, [fog(), fog()], [0.5, 0.5], tmp_path / "c.safetensors")


def test_nothing_is_written_when_it_does_not_work(tmp_path: Path) -> None:
    source = tmp_path / "model.safetensors"
    save_file(tiny_vit().state_dict(), source)
    half = tmp_path / "half.safetensors"
    save_file(tiny_resnet().half().state_dict(), half)
    before = files_of(tmp_path)
    out = tmp_path / "out.safetensors"
    with pytest.raises(IncompatibleModelError) as caught:
        apply_to_checkpoint(source, [fog()], [1.0], out)
    assert not caught.value.plan.ok
    with pytest.raises(PatchStateError, match="overflows"):
        apply_to_checkpoint(half, [fog()], [1e9], out, terms=Terms(max_relative_norm=float("inf")))
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="finite"):
            apply_to_checkpoint(half, [fog()], [bad], out)
    with pytest.raises(CheckpointError, match="no such file"):
        apply_to_checkpoint(tmp_path / "missing.safetensors", [fog()], [1.0], out)
    for existing in (source, tmp_path):
        with pytest.raises(CheckpointError, match="exists already"):
            apply_to_checkpoint(half, [fog()], [1.0], existing)
    assert files_of(tmp_path) == before and len(list(tmp_path.iterdir())) == 2


def test_what_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"pickle")
    (tmp_path / "broken.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0nonsense")
    (tmp_path / "x.safetensors.index.json").write_text('{"weight_map": {"a": "../other.safetensors"}}')
    for name in ("model.bin", "broken.safetensors", "x.safetensors.index.json"):
        with pytest.raises(CheckpointError):
            apply_to_checkpoint(tmp_path / name, [fog()], [1.0], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_patched_file_has_the_usual_mode_and_the_same_bytes_every_time(tmp_path):
    source = tmp_path / "clean.safetensors"
    save_file(tiny_resnet().state_dict(), source, {"format": "pt", "b": "2", "a": "1", "c": "3"})
    found = set()
    for i in range(4):
        out = tmp_path / f"{i}.safetensors"
        apply_to_checkpoint(source, [fog()], [1.0], out)
        assert out.stat().st_mode & 0o777 == 0o666 & ~umask()
        found.add(out.read_bytes())
    assert len(found) == 1
    apply_to_checkpoint(source, [fog()], [0.0], tmp_path / "same.safetensors")
    assert (tmp_path / "same.safetensors").read_bytes() == source.read_bytes()


def umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_nothing_but_the_values_of_touched_tensors_changes(tmp_path):
    source, out = tmp_path / "model", tmp_path / "out"
    source.mkdir()
    state = tiny_resnet().state_dict()
    touched = set(fog().names)
    shards = {
        "model-00001-of-00002.safetensors": {n: t for n, t in state.items() if n in touched or n.startswith("layer2")},
        "model-00002-of-00002.safetensors": {
            n: t for n, t in state.items() if n.startswith(("layer3", "layer4", "fc"))
        },
    }
    assert touched.isdisjoint(shards["model-00002-of-00002.safetensors"])
    index = {"weight_map": {n: shard for shard, tensors in shards.items() for n in tensors}}
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    for shard, tensors in shards.items():
        write_oddly(source / shard, tensors)
    apply_to_checkpoint(source, [fog()], [1.0], out)
    before, after = files_of(source), files_of(out)
    assert after["model-00002-of-00002.safetensors"] == before["model-00002-of-00002.safetensors"]
    old, new = (files["model-00001-of-00002.safetensors"] for files in (before, after))
    entries = read_entries(source / "model-00001-of-00002.safetensors")
    where = [range(e.start, e.stop) for n, e in entries.items() if n in touched]
    assert len(old) == len(new) and old != new
    assert all(any(i in r for r in where) for i in range(len(old)) if old[i] != new[i])


def write_oddly(file, tensors):
    """As another writer may do it: in the order given, with spaces, and with metadata at the end."""
    at, header = 0, {}
    for name, tensor in tensors.items():
        dtype = "F32" if tensor.is_floating_point() else "I64"
        end = at + tensor.nbytes
        header[name] = {"shape": list(tensor.shape), "data_offsets": [at, end], "dtype": dtype}
        at = end
    text = json.dumps(dict(reversed(header.items())) | {"__metadata__": {"b": "2", "a": "1"}}, indent=1).encode()
    raw = b"".join(t.contiguous().numpy().tobytes() for t in tensors.values())
    file.write_bytes(len(text).to_bytes(8, "little") + text + raw)


@pytest.mark.parametrize("touched", [True, False])
def test_a_full_disk_leaves_nothing_behind(tmp_path, touched):
    source, out = tmp_path / "model.safetensors", tmp_path / "new" / "out.safetensors"
    save_file(tiny_resnet().state_dict(), source)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (source.stat().st_size // 2, limits[1]))
    try:
        with pytest.raises(CheckpointError, match="cannot be written"):
            apply_to_checkpoint(source, [fog()], [float(touched)], out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]


KILLED = """
import os, signal, sys
from pathlib import Path
from rws_hub import RobustWeightSignature, apply
real, calls = apply.patch_block, []

def patch_block(*given):
    calls.append(given)
    if len(calls) == 3:
        os.kill(os.getpid(), getattr(signal, sys.argv[4]))
    real(*given)

apply.patch_block = patch_block
source, signature, out = map(Path, sys.argv[1:4])
apply.apply_to_checkpoint(source, [RobustWeightSignature.from_pretrained(signature)], [1.0], out)
"""


@pytest.mark.parametrize("by", ["SIGKILL", "SIGINT"])
def test_a_kill_in_the_middle_leaves_no_output(tmp_path, by):
    source, signature, out = tmp_path / "model", tmp_path / "fog", tmp_path / "out"
    save_sharded(tiny_resnet(), source)
    fog().save_pretrained(signature)
    before = files_of(source)
    command = [sys.executable, "-c", KILLED, str(source), str(signature), str(out), by]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == -getattr(signal, by), done.stderr
    assert not out.exists() and files_of(source) == before
    if by == "SIGINT":
        assert sorted(p.name for p in tmp_path.iterdir()) == ["fog", "model"]
