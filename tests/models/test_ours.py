import pytest
import torch

from cbam3d import create_model
from cbam3d.models.ours import OURS, attention_of, network_options


def test_what_a_word_for_attention_means():
    assert attention_of("cbam_cnn", None) == "cbam"
    assert attention_of("fast_cnn", None) is None
    assert attention_of("cbam_cnn", "none") is None
    assert attention_of("resnet18", "se") == "se"


def test_options():
    assert {"width", "stem_pool", "dropout"} <= network_options("resnet18")
    assert {"size", "channels", "hidden"} <= network_options("cbam_cnn")
    assert "attention" not in network_options("fast_cnn")
    assert len(OURS) == len(set(OURS))


@pytest.mark.parametrize("name", ["cbam_cnn", "fast_cnn"])
def test_tam_goes_into_the_small_networks_too(name):
    size = {"size": (8, 16, 16)} if name == "cbam_cnn" else {}
    frames = {"num_frames": 8 if name == "cbam_cnn" else 16}
    model = create_model(name, 3, 3, attention="tam", attention_options=frames, channels=[4, 4, 4], **size)
    shape = (8, 16, 16) if name == "cbam_cnn" else (16, 16, 16)
    assert model(torch.randn(2, 3, *shape)).isfinite().all()
