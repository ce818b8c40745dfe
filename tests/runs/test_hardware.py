import pytest
import torch
from torch import nn

from cbam3d import load_config
from cbam3d.runs import hardware
from cbam3d.runs.hardware import computes_bfloat16, device_type, precision_of, with_precision


def auto(**values):
    return load_config({"config": "motion", "run.accelerator": "cpu", **values})


def has_bfloat16(monkeypatch, answer=True):
    monkeypatch.setattr(hardware, "computes_bfloat16", lambda device: answer)


@pytest.mark.parametrize("name", ["motion", "folder", "ucf101", "probe", "finetune", "cifar10_fast"])
def test_the_bundled_configurations_leave_it_to_the_hardware(name):
    assert load_config(name).run.precision == "auto"


def test_bfloat16_where_the_hardware_computes_it(monkeypatch):
    has_bfloat16(monkeypatch, False)
    assert precision_of(auto()) == "32-true"
    has_bfloat16(monkeypatch)
    assert precision_of(auto()) == "bf16-mixed"
    assert precision_of(auto(**{"run.precision": "16-mixed"})) == "16-mixed"


@pytest.mark.parametrize(
    ("network", "precision"),
    [("resnet10", "bf16-mixed"), ("timm/mobilenetv3_small_050", "32-true"), ("torchvision/r3d_18", "bf16-mixed")],
)
def test_grouped_convolutions_stay_in_float32_on_a_cpu(network, precision, monkeypatch):
    has_bfloat16(monkeypatch)
    values = {"model.name": network, "model.options": {}, "model.attention": None}
    values |= {"model.as_video": "frames"} if network.startswith("timm") else {}
    assert precision_of(auto(**values)) == precision
    monkeypatch.setattr(hardware, "device_type", lambda accelerator: "cuda")
    assert precision_of(auto(**values)) == "bf16-mixed"


def test_a_network_of_ones_own_decides_for_itself(monkeypatch):
    has_bfloat16(monkeypatch)
    assert precision_of(auto(), nn.Conv3d(4, 4, 3)) == "bf16-mixed"
    assert precision_of(auto(), nn.Sequential(nn.Conv2d(4, 4, 3, groups=4))) == "32-true"


def test_the_memory_format_follows_the_precision():
    for precision, expected in (("32-true", False), ("bf16-mixed", True), ("16-mixed", True)):
        assert with_precision(auto(), precision).run.channels_last is expected
        assert with_precision(auto(**{"run.channels_last": False}), precision).run.channels_last is False


def test_what_this_machine_has(monkeypatch):
    if not torch.cuda.is_available():
        assert device_type("gpu") == device_type("auto") != "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [device_type(name) for name in ("auto", "gpu", "cuda", "cpu")] == ["cuda"] * 3 + ["cpu"]
    for capability, expected in (((7, 5), False), ((8, 0), True), ((12, 0), True)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda capability=capability: capability)
        assert computes_bfloat16("cuda") is expected
    assert not computes_bfloat16("mps")
    for known in ({"avx512_bf16": True}, {"avx512_bf16": False, "amx_bf16": True}):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda known=known: known, raising=False)
        assert computes_bfloat16("cpu")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_f": True}, raising=False)
    assert not computes_bfloat16("cpu")
