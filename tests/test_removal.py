"""Three ways back to the clean values: every bit, or a clear refusal."""

import math
import re

import pytest
import torch
from bits import bits, changed, plant_odd_values
from builders import perturbed, seeded, tiny_resnet, tiny_signature
from safetensors.torch import save_file
from torch import nn

from rws_hub import PatchStateError, RobustWeightSignature, patch, removal
from rws_hub.removal import SNAPSHOT_BYTES, choose_mode

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
MODES = ["snapshot", "reload", "ledger"]


@pytest.fixture(scope="module")
def fog():
    return tiny_signature(corruption="fog", seed=1)


@pytest.fixture(scope="module")
def noise():
    return tiny_signature(corruption="noise", seed=2)


@pytest.fixture(autouse=True)
def _nothing_is_small(monkeypatch):
    """Else most tensors of these models would be copied."""
    monkeypatch.setattr(removal, "_SMALL", 1)


def ready(mode, dtype, folder, odd=True):
    """A model, and how it is to be patched."""
    model = tiny_resnet().to(dtype)
    if odd:
        plant_odd_values(model.conv1.weight)
    if mode != "reload":
        return model, {"removal": mode}
    save_file(model.state_dict(), folder / "model.safetensors")
    return model, {"checkpoint": folder / "model.safetensors"}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_every_bit_comes_back_and_all_ways_patch_alike(mode, dtype, fog, noise, tmp_path):
    model, how = ready(mode, dtype, tmp_path)
    plain, _ = ready("snapshot", dtype, tmp_path)
    clean = bits(model)
    for alpha in (1.0, -0.3, 30.0):
        p, q = (patch(m, fog, alpha=alpha, max_relative_norm=math.inf, **k) for m, k in ((model, how), (plain, {})))
        assert bits(model) == bits(plain) != clean
        p.add(noise, alpha=0.5)
        p.set_alpha(fog=0.7)
        p.remove("noise")
        q.set_alpha(fog=0.7)
        assert bits(model) == bits(plain)
        for handle in (p, q):
            handle.unpatch()
        assert changed(clean, model) == set()


def test_what_is_kept_is_told(fog, tmp_path):
    touched = sum(fog.elements(n) for n in fog.names)
    kept = {}
    for mode in MODES:
        model, how = ready(mode, torch.float32, tmp_path, odd=False)
        p = patch(model, fog, **how)
        kept[mode] = p.kept_bytes
        p.unpatch()
        assert p.kept_bytes == 0
    # Running variances are multiplied, and copied in any case.
    statistics = sum(4 * fog.elements(n) for n in fog.names if n.endswith("running_var"))
    assert kept["snapshot"] == 4 * touched == patch(tiny_resnet(), fog).plan.signatures[0].touched_bytes
    assert statistics < kept["reload"] < statistics + 16 * len(fog.names)
    assert kept["reload"] < kept["ledger"] < kept["snapshot"] / 3


def test_memory_does_not_grow_with_what_was_removed(fog, noise):
    model = tiny_resnet()
    p = patch(model, fog)
    before = p.kept_bytes
    for _ in range(10):
        p.add(noise)
        p.remove("noise")
        assert p.kept_bytes == before


@pytest.mark.parametrize("mode", MODES)
def test_a_changed_weight_is_not_undone(mode, fog, tmp_path):
    model, how = ready(mode, torch.float32, tmp_path)
    p = patch(model, fog, **how)
    model.conv1.weight.detach().view(torch.int32).view(-1)[3] ^= 1
    after = bits(model)
    for action in (p.unpatch, lambda: p.set_alpha(fog=0.5)):
        with pytest.raises(PatchStateError, match=r"conv1.weight was changed while it was patched"):
            action()
        assert changed(after, model) == set() and p.active
    if mode == "ledger":  # it knows the way back from its own values only
        with pytest.raises(PatchStateError, match="load the clean weights again"):
            p.unpatch(force=True)
        model.conv1.weight.detach().view(torch.int32).view(-1)[3] ^= 1
    p.unpatch(force=True)
    assert not changed(bits(ready("snapshot", torch.float32, tmp_path)[0]), model)


@pytest.mark.parametrize("mode", MODES)
def test_forcing_a_model_that_was_loaded_anew(mode, fog, tmp_path):
    model, how = ready(mode, torch.float32, tmp_path)
    clean = {n: t.clone() for n, t in model.state_dict().items()}
    before = bits(model)
    p = patch(model, fog, **how)
    model.load_state_dict(clean)
    with pytest.raises(PatchStateError, match="was changed while it was patched"):
        p.unpatch()
    p.unpatch(force=True)
    assert changed(before, model) == set() and not p.active


def test_forcing_what_a_ledger_cannot_restore_changes_nothing(fog):
    model = tiny_resnet()
    p = patch(model, fog, removal="ledger")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    before = bits(model)
    for force in (False, True):
        with pytest.raises(PatchStateError, match=r"load the clean weights again and call unpatch\(force=True\)"):
            p.unpatch(force=force)
        assert changed(before, model) == set() and p.active


def test_a_relative_path_is_that_of_the_time_of_patching(fog, tmp_path, monkeypatch):
    model, _ = ready("reload", torch.float32, tmp_path)
    clean = bits(model)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    p = patch(model, fog, checkpoint="model.safetensors")
    monkeypatch.chdir(tmp_path / "elsewhere")
    p.unpatch()
    assert changed(clean, model) == set()


@pytest.mark.parametrize("mode", MODES)
def test_a_model_on_the_meta_device_is_refused_and_nothing_is_let_go(mode, fog, tmp_path):
    model, how = ready(mode, torch.float32, tmp_path)
    clean = {n: t.clone() for n, t in model.state_dict().items()}
    p = patch(model, fog, **how)
    model.to("meta")
    for action in (p.unpatch, lambda: p.unpatch(force=True), lambda: p.set_alpha(fog=0)):
        with pytest.raises(PatchStateError, match="is on the meta device and holds no values now"):
            action()
        assert p.active
    model.to_empty(device="cpu")
    model.load_state_dict(clean)
    p.unpatch(force=True)
    assert all(
        torch.equal(t.view(torch.uint8), clean[n].view(torch.uint8)) for n, t in model.state_dict().items() if t.ndim
    )


@pytest.mark.parametrize(
    ("mode", "checkpoint", "size", "expected"),
    [
        (None, False, SNAPSHOT_BYTES, "snapshot"),
        (None, False, SNAPSHOT_BYTES + 1, "ledger"),
        (None, True, 1, "reload"),
        ("reload", True, 1, "reload"),
        ("ledger", False, 1, "ledger"),
        ("snapshot", False, 2**40, "snapshot"),
    ],
)
def test_the_way_back_is_chosen_by_size_or_by_the_user(mode, checkpoint, size, expected):
    assert choose_mode(mode, checkpoint, size) == expected


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"removal": "reload"}, "removal='reload' needs checkpoint="),
        ({"removal": "ledger", "checkpoint": "x"}, "removal='ledger' needs no checkpoint"),
        ({"removal": "subtract"}, "removal='subtract': expected 'snapshot', 'reload' or 'ledger'"),
    ],
)
def test_contradictions_are_refused(how, message, fog):
    model = tiny_resnet()
    clean = bits(model)
    with pytest.raises(ValueError, match=re.escape(message)):
        patch(model, fog, **how)
    assert changed(clean, model) == set()


def test_a_second_patch_keeps_the_way_back_that_there_is(fog, noise):
    model = tiny_resnet()
    clean = bits(model)
    first = patch(model, fog, removal="ledger")
    kept = first.kept_bytes
    second = patch(model, noise, removal="snapshot")
    assert second.kept_bytes < 2 * kept
    first.unpatch()
    second.unpatch()
    assert changed(clean, model) == set()


@pytest.mark.parametrize("mode", ["snapshot", "ledger"])
def test_another_layout_in_memory(mode, fog):
    model = tiny_resnet().to(memory_format=torch.channels_last)
    plain = tiny_resnet()
    clean = bits(model)
    p = patch(model, fog, removal=mode)
    patch(plain, fog)
    assert bits(model) == bits(plain) and model.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    model.to(memory_format=torch.contiguous_format)
    p.set_alpha(fog=0.5)
    p.unpatch()
    assert changed(clean, model) == set()


class Wide(nn.Module):
    """Large enough for two threads and many blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(1200, 700)
        self.b = nn.Linear(1, 400_000)


@pytest.fixture(scope="module")
def wide():
    clean = seeded(Wide, 0)
    robust = perturbed(clean, 0.1, 1)
    return RobustWeightSignature.extract(
        standard=clean, robust=robust, corruption="fog", license="mit", layers=["*"], bits=2
    )


@pytest.mark.parametrize("mode", ["snapshot", "ledger"])
def test_two_threads_write_what_one_writes(mode, wide):
    threads = torch.get_num_threads()
    found = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            model = seeded(Wide, 0)
            clean = bits(model)
            p = patch(model, wide, alpha=0.3, removal=mode, max_relative_norm=math.inf)
            found.append(bits(model))
            p.set_alpha(fog=-2.0)
            p.unpatch()
            assert changed(clean, model) == set() and torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    assert found[0] == found[1]


def test_a_failure_in_the_last_of_many_blocks_takes_everything_back(wide):
    threads = torch.get_num_threads()
    model = seeded(Wide, 0).half()
    clean = bits(model)
    try:
        torch.set_num_threads(2)
        with pytest.raises(PatchStateError, match=r"overflows torch\.float16"):
            patch(model, wide, alpha=1e9, max_relative_norm=math.inf)
        assert changed(clean, model) == set()
        p = patch(model, wide, max_relative_norm=math.inf)
        patched = bits(model)
        model.b.weight.detach().view(torch.int16).view(-1)[-1] ^= 1
        patched_and_changed = bits(model)
        with pytest.raises(PatchStateError, match=r"b\.weight was changed"):
            p.unpatch()
        assert changed(patched_and_changed, model) == set()
        model.b.weight.detach().view(torch.int16).view(-1)[-1] ^= 1
        assert bits(model) == patched
        p.unpatch()
        assert changed(clean, model) == set()
    finally:
        torch.set_num_threads(threads)
