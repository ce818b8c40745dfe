"""Memory is poisoned before forward and backward: what reads memory that nobody wrote, reads NaN."""

import copy
import io

import pytest
import torch
from torch import nn

from cbam3d import CBAM3d, create_attention, create_model, guard_conv3d
from cbam3d.attention.bfloat16 import Conv3d, is_affected


def poison():
    blocks = [torch.full((size * 2**power // 4,), torch.nan) for power in range(8, 24) for size in (2, 3)]
    blocks += [
        torch.full((size * 2**power // 2,), torch.nan, dtype=torch.bfloat16)
        for power in range(8, 24)
        for size in (2, 3)
    ]
    del blocks


def gradients(model, x, precision):
    """Of the model's parameters; "mixed" is under autocast, "pure" with the parameters in bfloat16."""
    model, x = copy.deepcopy(model), x.clone()
    if precision == "pure":
        model, x = model.bfloat16(), x.bfloat16()
    poison()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "mixed"):
        y = model(x)
    poison()
    y.backward(torch.ones_like(y))
    return {name: parameter.grad.float() for name, parameter in model.named_parameters() if parameter.grad is not None}


def assert_close(model, x):
    expected = gradients(model, x, "float32")
    assert expected
    for precision in ("mixed", "pure"):
        for name, gradient in gradients(model, x, precision).items():
            assert gradient.isfinite().all(), (precision, name)
            scale = expected[name].abs().max() + 1e-3
            assert (gradient - expected[name]).abs().max() < 0.1 * scale, (precision, name)


@pytest.mark.parametrize(
    ("kernel", "padding", "frames", "stride"),
    [
        *(
            (2, 1, 1, 1),
            (3, 1, 2, 1),
            (3, 2, 1, 1),
            (3, 2, 2, 1),
            (3, "same", 2, 1),
            (3, 1, 2, (1, 2, 2)),
            (4, 2, 3, 1),
        ),
        *((5, 2, 3, 1), (5, 2, 4, 1), (7, 3, 4, 1), (7, 3, 6, 1), (9, 4, 5, 1)),
    ],
)
@pytest.mark.parametrize("foreign", [False, True])
def test_gradients_are_those_of_float32(kernel, padding, frames, stride, foreign):
    torch.manual_seed(0)
    cls = nn.Conv3d if foreign else Conv3d
    around = padding if padding == "same" else (padding, 1, 1)
    conv = guard_conv3d(cls(16, 8, (kernel, 3, 3), stride=stride, padding=around))
    x = torch.randn(2, 16, frames, 10, 10)
    assert is_affected(conv, x.bfloat16())
    plain = nn.Conv3d(16, 8, (kernel, 3, 3), stride=stride, padding=around)
    plain.load_state_dict(conv.state_dict())
    assert torch.equal(conv(x), plain(x))  # float32 goes its usual way
    assert_close(conv, x)


def test_a_transposed_convolution_is_guarded():
    torch.manual_seed(0)
    conv = guard_conv3d(nn.ConvTranspose3d(16, 8, 3, padding=1))
    x = torch.randn(2, 16, 2, 10, 10)
    assert_close(conv, x)
    with torch.autocast("cpu", torch.bfloat16):
        assert conv(x).dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["resnet10", "torchvision/r3d_18", "torchvision/r2plus1d_18"])
def test_the_last_stage_of_networks_on_two_frames(name):
    torch.manual_seed(0)
    options = {"width": 8, "attention": "cbam"} if name == "resnet10" else {}
    model = guard_conv3d(create_model(name, num_classes=3, ndim=3, **options)).eval()
    found = gradients(model, torch.randn(1, 3, 16, 16, 16), "mixed")
    assert all(gradient.isfinite().all() for gradient in found.values())


@pytest.mark.parametrize("name", ["bam", "residual", "sc", "sk"])
def test_blocks_are_guarded_in_anybodys_loop(name):
    torch.manual_seed(0)
    block = create_attention(name, 16, ndim=3).eval()
    found = gradients(block, torch.randn(2, 16, 2, 12, 12), "mixed")
    assert all(gradient.isfinite().all() for gradient in found.values())


def test_a_joint_map_of_space_and_time_is_guarded():
    torch.manual_seed(0)
    assert_close(CBAM3d(16, kernel_size=(3, 7, 7)), torch.randn(2, 16, 2, 14, 14))


def test_a_guarded_network_can_be_copied_and_saved():
    model = guard_conv3d(nn.Sequential(nn.Conv3d(3, 4, 3, padding=1), nn.ConvTranspose3d(4, 4, 3, padding=1)))
    other = copy.deepcopy(model)
    with torch.no_grad():
        other[0].weight.zero_()
    assert model[0].weight.abs().sum() > 0
    assert other[0]._conv_forward.args[0] is other[0]
    assert list(model.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    x = torch.randn(1, 3, 2, 6, 6)
    assert torch.equal(torch.load(buffer, weights_only=False)(x), model(x))


@pytest.mark.parametrize(
    ("x", "affected"),
    [
        (torch.zeros(1, 4, 2, 5, 5), False),
        (torch.zeros(1, 4, 2, 5, 5, dtype=torch.float16), False),
        (torch.zeros(1, 4, 3, 5, 5, dtype=torch.bfloat16), False),
        (torch.zeros(1, 4, 2, 5, 5, dtype=torch.bfloat16), True),
        (torch.zeros(1, 4, 2, 5, 5, dtype=torch.bfloat16, device="meta"), False),
    ],
)
def test_only_what_is_wrong_goes_another_way(x, affected):
    conv = Conv3d(4, 4, 3, padding=1)
    assert is_affected(conv, x) is affected
    with torch.no_grad():
        assert not is_affected(conv, x)
        assert is_affected(Conv3d(4, 4, 3, padding=1, groups=2), x) is affected


def test_outputs_of_groups_of_three_channels_are_those_of_float32():
    torch.manual_seed(0)
    conv, x = Conv3d(33, 33, 3, padding=1, groups=11), torch.randn(1, 33, 1, 6, 6)
    with torch.no_grad():
        expected = conv(x)
        for _ in range(10):
            poison()
            with torch.autocast("cpu", torch.bfloat16):
                torch.testing.assert_close(conv(x).float(), expected, rtol=0.05, atol=0.05)
