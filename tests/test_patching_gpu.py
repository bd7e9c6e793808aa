"""The same promises on a GPU, and the same bits as on the CPU. Skipped where there is none."""

from pathlib import Path

import pytest
import torch
from bits import bits, changed, plant_odd_values
from builders import perturbed, tiny_resnet, tiny_signature, tiny_vit

from rws_hub import RobustWeightSignature, patch, plan_patch

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


@pytest.fixture(scope="module")
def fog():
    return tiny_signature(corruption="fog", seed=1)


@pytest.fixture(scope="module")
def noise():
    return tiny_signature(corruption="noise", seed=2, layers=1, bits=32)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_unpatching_restores_every_bit(dtype, fog, noise):
    model = tiny_resnet().to(dtype)
    plant_odd_values(model.conv1.weight)
    model = model.cuda()
    clean = bits(model)
    with patch(model, fog, noise, alpha=(0.7, -1.3)) as p:
        assert changed(clean, model) == {*fog.names, *noise.names}
        p.set_alpha(fog=2)
    assert changed(clean, model) == set()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_patched_bits_are_those_of_the_cpu(dtype, fog, noise):
    models = [tiny_resnet().to(dtype), tiny_resnet().to(dtype).cuda()]
    for alpha in [(1.0, 1.0), (0.37, -2.3), (-5.0, 1e-4)]:
        patched = []
        for model in models:
            with patch(model, fog, noise, alpha=alpha):
                patched.append(bits(model))
        assert patched[0] == patched[1], alpha


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_patched_model_may_move_between_devices(dtype, fog, noise):
    model = tiny_resnet().to(dtype)
    clean = bits(model)
    p = patch(model, fog, alpha=0.37)
    model.cuda()
    p.set_alpha(fog=-1.1)
    p.add(noise)
    model.cpu()
    p.remove("noise")
    model.cuda()
    p.unpatch()
    assert changed(clean, model) == set() and model.conv1.weight.is_cuda


def test_plan_and_extraction_read_from_the_gpu():
    standard = tiny_resnet()
    robust = perturbed(standard, 0.01, 1)
    options = {"corruption": "fog", "license": "mit", "layers": 2}
    on_cpu = RobustWeightSignature.extract(standard=standard, robust=robust, **options)
    on_gpu = RobustWeightSignature.extract(standard=standard.cuda(), robust=robust.cuda(), **options)
    assert on_gpu.payload == on_cpu.payload and on_gpu.config == on_cpu.config
    (plan,) = plan_patch(standard, on_cpu).signatures
    assert plan.ok and plan.similarity > 0.99


def test_half_the_model_on_the_gpu(fog):
    model = tiny_resnet()
    model.layer1.cuda()
    clean = bits(model)
    with patch(model, fog):
        assert changed(clean, model) == set(fog.names)
    assert changed(clean, model) == set()


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
@pytest.mark.parametrize("deterministic", [False, True])
def test_products_of_factors_have_the_bits_of_the_cpu_however_precise_others_may_be(precision, deterministic):
    folder = Path(__file__).parent / "fixtures" / "v5" / "vit"
    signature = RobustWeightSignature.from_pretrained(folder)
    models = [tiny_vit(embed_dim=24), tiny_vit(embed_dim=24).cuda()]
    before, patched = torch.get_float32_matmul_precision(), []
    torch.set_float32_matmul_precision(precision)
    torch.use_deterministic_algorithms(deterministic)
    try:
        for model in models:
            with torch.autocast("cuda", torch.bfloat16), patch(model, signature, alpha=0.37):
                patched.append(bits(model))
    finally:
        torch.use_deterministic_algorithms(False)
        torch.set_float32_matmul_precision(before)
    assert patched[0] == patched[1]
