"""A model whose parameters are spread over two processes is patched part by part."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rws_hub.shards import is_sharded, part_of

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")


def test_a_plain_tensor_is_here_whole():
    tensor = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3))
    part = part_of(tensor)
    assert not is_sharded(tensor) and part.offset == 0
    assert part.values.data_ptr() == tensor.data_ptr() and not part.values.requires_grad


SCRIPT = r"""
import sys
import torch, torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from bits import bits_of
from builders import tiny_resnet, tiny_signature
from rws_hub import IncompatibleModelError, PatchStateError, patch, plan_patch, removal

torch.set_num_threads(1)
torch.set_grad_enabled(False)
dist.init_process_group("gloo")
rank = dist.get_rank()
mesh = init_device_mesh("cpu", (2,))
fog, noise = tiny_signature(corruption="fog", seed=1), tiny_signature(corruption="noise", seed=2)

def whole(model):
    return {n: bits_of(t.full_tensor() if hasattr(t, "full_tensor") else t) for n, t in model.state_dict().items()}

# FSDP2: shards of the first axis, of uneven lengths where it is odd
model, plain = tiny_resnet(), tiny_resnet()
fully_shard(model, mesh=mesh)
clean = whole(model)
for mode in ("snapshot", "ledger"):
    removal._SMALL = 1
    p, q = patch(model, fog, removal=mode), patch(plain, fog)
    assert whole(model) == whole(plain) != clean
    # every process compares its own rows, and all of them say the same
    assert p.plan.signatures == q.plan.signatures and p.plan.signatures[0].similarity == 1.0
    assert [c.names for c in p.plan.changes[:3]] == [c.names for c in q.plan.changes[:3]]
    assert abs(p.plan.relative_norm - q.plan.relative_norm) < 0.02 * q.plan.relative_norm
    p.add(noise, alpha=0.5); q.add(noise, alpha=0.5)
    p.set_alpha(fog=-0.3); q.set_alpha(fog=-0.3)
    assert whole(model) == whole(plain)
    p.unpatch(); q.unpatch()
    assert whole(model) == whole(plain) == clean
assert plan_patch(model, fog).ok and plan_patch(model, fog).signatures[0].similarity is None

# a stranger, too much, and what cannot be known are refused by all
stranger, holed = tiny_resnet(seed=1), tiny_resnet()
holed.conv1.weight[len(holed.conv1.weight) // 2 :] = torch.nan  # what one of the processes holds
for spread in (stranger, holed):
    fully_shard(spread, mesh=mesh)
for target, how, why in (
    (stranger, {}, "stranger"),
    (holed, {}, "conv1.weight are NaN" if rank == 1 else "another process holds a part of are NaN"),
    (model, {"alpha": 9}, "max_relative_norm"),
    (model, {"verify": "exact"}, "spread over processes"),
):
    try:
        patch(target, fog, **how)
    except IncompatibleModelError as error:
        assert why in str(error), error
    else:
        raise AssertionError("not refused")
assert whole(model) == clean
assert not plan_patch(model, fog, verify="exact").ok

# after a forward pass FSDP2 keeps what the root owns whole: what is written to that would be lost
images = torch.ones(1, 3, 32, 32)
own = plain(images)
assert torch.equal(model(images), own)
p, q = patch(model, fog), patch(plain, fog)
patched = plain(images)
assert not torch.equal(patched, own)
for _ in range(2):
    assert torch.equal(model(images), patched)
for alpha in (0.3, -1.0):
    p.set_alpha(fog=alpha)
    q.set_alpha(fog=alpha)
    assert torch.equal(model(images), plain(images))
p.unpatch()
q.unpatch()
assert torch.equal(model(images), own)
model.reshard()
assert whole(model) == clean
assert not plan_patch(model, fog, verify="exact").ok

# whole copies
copies = tiny_resnet()
for module in copies.modules():
    for name, parameter in module._parameters.items():
        if parameter is not None:
            module._parameters[name] = nn.Parameter(distribute_tensor(parameter.detach(), mesh, [Replicate()]))
with patch(copies, fog):
    with patch(plain, fog):
        assert whole(copies) == whole(plain)
assert whole(copies) == clean

# shards of another axis are refused, by name
across = tiny_resnet()
across.conv1.weight = nn.Parameter(distribute_tensor(across.conv1.weight.detach(), mesh, [Shard(1)]))
try:
    patch(across, fog)
except IncompatibleModelError as error:
    assert "conv1.weight" in str(error) and "Shard(dim=1)" in str(error), error
else:
    raise AssertionError("not refused")

# if one process refuses, so do all: only one of them holds the weight that was changed
p = patch(model, fog)
before = whole(model)
local = model.conv1.weight.to_local()
if rank == 1:
    with torch.no_grad():
        local[-1] += 1
changed = whole(model)
try:
    p.unpatch()
except PatchStateError as error:
    assert ("was changed while it was patched" if rank == 1 else "another process") in str(error), error
else:
    raise AssertionError("not refused")
assert whole(model) == changed != before and p.active
dist.barrier()
dist.destroy_process_group()
print("fine")
"""


def test_two_processes(tmp_path):
    script = tmp_path / "two.py"
    script.write_text(SCRIPT)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    tests = Path(__file__).parent
    common = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(tests), str(tests.parent)]),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "OMP_NUM_THREADS": "1",
    }
    running = [
        subprocess.Popen(
            [sys.executable, str(script)],
            env=common | {"RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    told = [process.communicate(timeout=120)[0] for process in running]
    assert [t.strip().splitlines()[-1:] for t in told] == [["fine"], ["fine"]], "\n".join(told)
