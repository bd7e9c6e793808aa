"""The clean values of a model that is patched: as good as they were, while the patch stays on."""

import pytest
import torch
from bits import bits, bits_of
from builders import tiny_resnet, tiny_signature
from safetensors.torch import save_file

from rws_hub import patch
from rws_hub.clean import layer_of, rows_near, sizes, whole


@pytest.mark.parametrize("mode", ["snapshot", "ledger", "reload", "none"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_clean_values_are_read_below_a_patch(mode, dtype, tmp_path, monkeypatch):
    monkeypatch.setattr("rws_hub.removal._SMALL", 1)
    model = tiny_resnet().to(dtype)
    clean = {n: t.detach().clone() for n, t in model.state_dict().items()}
    how = {"removal": mode}
    if mode == "reload":
        save_file(model.state_dict(), tmp_path / "model.safetensors")
        how = {"checkpoint": tmp_path / "model.safetensors"}
    if mode != "none":
        handles = [patch(model, tiny_signature(layers=2), **how), patch(model, tiny_signature(layers=1, seed=2), **how)]
        assert len(handles) == 2
    before = bits(model)
    for module, attribute, name in (
        (model.conv1, "weight", "conv1.weight"),
        (model.layer1[0].conv2, "weight", "layer1.0.conv2.weight"),
        (model.layer4[0].conv1, "weight", "layer4.0.conv1.weight"),
    ):
        home = (module, attribute)
        assert bits_of(whole(home, name)) == bits_of(clean[name])
        for start, stop in ((0, 1), (3, 8), (0, len(clean[name]))):
            found, expected = rows_near(home, start, stop).double(), clean[name][start:stop].double()
            step = torch.finfo(dtype).eps if dtype != torch.float64 else 1e-7
            assert found.shape == expected.shape and (found - expected).abs().max() <= step * expected.abs().max()
        assert layer_of(home) == [home]
        assert sizes([home])[home] == pytest.approx(float(clean[name].double().square().sum()), rel=0.1)
    bn = model.layer1[0].bn1
    layer = layer_of((bn, "bias"))
    assert {name for _, name in layer} == {"weight", "bias", "running_mean", "running_var"}
    assert sizes(layer)[bn, "running_var"] == pytest.approx(float(clean["layer1.0.bn1.running_var"].sum()), rel=0.01)
    assert bits(model) == before
