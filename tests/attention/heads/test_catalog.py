"""What every head owes its users."""

import pytest
import torch
from torch import nn

from cbam3d.attention import create_head, list_heads, register_head
from cbam3d.attention.heads import catalog, head_options


@pytest.mark.parametrize("name", list_heads())
@pytest.mark.parametrize("size", [(5,), (4, 3), (3, 4, 2), (1, 1, 1)])
def test_features_of_any_rank(name, size):
    torch.manual_seed(0)
    head = create_head(name, 16, 3)
    x = torch.randn(2, 16, *size, requires_grad=True)
    out = head(x)
    assert out.shape == (2, 3)
    out.square().sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())


@pytest.mark.parametrize("name", list_heads())
def test_compiles_and_exports(name):
    torch.manual_seed(0)
    head, x = create_head(name, 16, 3).eval(), torch.randn(2, 16, 4, 3, 3)
    expected = head(x)
    torch.testing.assert_close(torch.compile(head, backend="aot_eager", fullgraph=True)(x), expected)
    program = torch.export.export(head, (x,), dynamic_shapes=({0: torch.export.Dim("n", min=1, max=64)},))
    torch.testing.assert_close(program.module()(x[:1]), expected[:1])


@pytest.mark.parametrize("kind", ["half", "autocast"])
@pytest.mark.parametrize("name", list_heads())
def test_large_features_stay_finite_in_float16(name, kind):
    for std in (100, 1000, 3000):
        torch.manual_seed(0)
        head, x = create_head(name, 16, 3).eval(), std * torch.randn(2, 16, 4, 3, 3)
        head = head.half() if kind == "half" else head
        with torch.autocast("cpu", torch.float16, enabled=kind == "autocast"):
            assert head(x.half()).isfinite().all(), std


def test_a_head_of_ones_own(monkeypatch):
    class Largest(nn.Module):
        def __init__(self, channels, num_classes, factor=1.0):
            super().__init__()
            self.linear, self.factor = nn.Linear(channels, num_classes), factor

        def forward(self, x):
            return self.factor * self.linear(x.flatten(2).amax(2))

    monkeypatch.setattr(catalog.heads, "added", {})
    register_head("largest", Largest)
    assert create_head("largest", 4, 2, factor=2.0)(torch.ones(1, 4, 3)).shape == (1, 2)
    assert head_options("largest") == {"factor": 1.0}
    with pytest.raises(ValueError, match="a name of its own"):
        register_head("mean", Largest)
    with pytest.raises(ValueError, match="must be a class"):
        register_head("other", nn.ReLU)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="did you mean 'attention'"):
        create_head("atention", 8, 2)
    with pytest.raises(ValueError, match="did you mean 'dropout'"):
        create_head("mean", 8, 2, dropuot=0.1)
    with pytest.raises(ValueError, match="channels and num_classes must be at least 1"):
        create_head("mean", 8, 0)
