"""Image networks as networks of clips."""

import copy
import pickle

import pytest
import torch
from torch import nn

from cbam3d import attention_maps, create_model, insert_attention, list_insertions, remove_attention
from cbam3d.attention import attention_ranks, list_attentions
from cbam3d.models.frames import FrameNetwork, changes

NETWORKS = [("resnet10", {"width": 8}), ("torchvision/resnet18", {}), ("timm/tf_efficientnet_lite0", {})]
CLIP = (2, 3, 4, 64, 64)


def pair(name, options, **more):
    """An image network, and the same on clips."""
    pytest.importorskip("timm") if name.startswith("timm/") else None
    torch.manual_seed(0)
    images = create_model(name, 5, ndim=2, attention="none", **options).eval()
    clips = create_model(name, 5, ndim=3, as_video="frames", weights=images.state_dict(), **options, **more).eval()
    return images, clips


def mean_over_frames(images, x):
    return images(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (len(x), -1)).mean(1)


@pytest.mark.parametrize(("name", "options"), NETWORKS)
def test_logits_are_the_mean_over_the_frames(name, options):
    images, clips = pair(name, options)
    x = torch.randn(CLIP)
    assert torch.equal(clips(x), mean_over_frames(images, x))
    assert torch.equal(clips(x[:, :, :3]), mean_over_frames(images, x[:, :, :3]))  # any number of frames


@pytest.mark.parametrize("mechanism", [name for name in list_attentions() if 3 in attention_ranks(name)])
def test_identity_changes_no_bit(mechanism):
    frames = {"num_frames": 4} if mechanism == "tam" else {}
    images, clips = pair(
        "resnet10", {"width": 8}, attention=mechanism, attention_options={"init": "identity", **frames}
    )
    assert len(list_insertions(clips)) == 4
    x = torch.randn(CLIP)
    assert torch.equal(clips(x), mean_over_frames(images, x))


def test_blocks_see_the_frames_of_a_clip():
    """A shift along time inside the image network is that of the frames of one clip, not of the batch."""
    _, clips = pair("resnet10", {"width": 8}, attention="tsm", attention_options={"init": "paper", "share": 0.5})
    x = torch.randn(CLIP)
    out = clips(x)
    torch.testing.assert_close(out[:1], clips(x[:1]))  # the other clip makes no difference
    assert not torch.allclose(out, clips(x.flip(2)), atol=1e-5)  # the order of frames does

    def shifted(block, args, output):
        y = output.unflatten(0, (2, 4))  # (N, T, C, h, w)
        half = y.shape[2] // 2
        zero = torch.zeros_like(y[:, :1])
        first, second = y[:, :, :half], y[:, :, half:]
        first = torch.cat([first[:, 1:], zero[:, :, :half]], 1)
        second = torch.cat([zero[:, :, half:], second[:, :-1]], 1)
        return torch.cat([first, second], 2).flatten(0, 1)

    reference = remove_attention(copy.deepcopy(clips))
    for name, module in reference.named_modules():
        if name.endswith(".attention"):  # the slot of a block
            module.register_forward_hook(shifted)
    torch.testing.assert_close(reference(x), out)


def test_without_attention_the_order_makes_no_difference():
    _, clips = pair("resnet10", {"width": 8})
    x = torch.randn(CLIP)
    torch.testing.assert_close(clips(x), clips(x[:, :, [2, 0, 3, 1]]))


def test_differences_are_the_grey_frame_and_twice_its_changes():
    clips = create_model("resnet10", 5, ndim=3, as_video="differences", width=8).eval()
    images = create_model("resnet10", 5, ndim=2, width=8).eval()
    images.load_state_dict(clips.backbone.state_dict())
    x = torch.randn(2, 3, 4, 32, 32)
    frames = []
    for sample in x:
        for t in range(4):
            grey, before, after = (sample[:, i].mean(0) for i in (t, max(t - 1, 0), min(t + 1, 3)))
            frames.append(torch.stack([grey, 2 * (grey - before), 2 * (after - grey)]))
    torch.testing.assert_close(clips(x), images(torch.stack(frames)).unflatten(0, (2, 4)).mean(1))
    still = x[:, :, :1].expand(-1, -1, 4, -1, -1)
    torch.testing.assert_close(changes(still)[:, 1:], torch.zeros(2, 2, 4, 32, 32))
    assert clips(x[:, :, :1]).shape == (2, 5)  # one frame


def test_copies_and_pickles_keep_their_own_number_of_frames():
    _, clips = pair("torchvision/resnet18", {}, attention="cbam", attention_options={"init": "paper"})
    x = torch.randn(CLIP)
    expected = clips(x)
    for other in (copy.deepcopy(clips), pickle.loads(pickle.dumps(clips))):
        clips(torch.randn(1, 3, 2, 64, 64))
        assert torch.equal(other(x), expected)
        assert len(list_insertions(other)) == 8
        assert not list_insertions(remove_attention(other))


def test_trains_compiles_exports_and_shows_its_maps():
    _, clips = pair("resnet10", {"width": 8}, attention="cbam", attention_options={"init": "paper"})
    x = torch.randn(CLIP)
    clips(x).sum().backward()
    assert all(p.grad is not None for p in clips.parameters())
    expected = clips(x)
    torch.testing.assert_close(torch.compile(clips, backend="aot_eager")(x), expected)
    program = torch.export.export(clips, (x,), dynamic_shapes=({0: torch.export.Dim("n", min=1, max=64)},))
    torch.testing.assert_close(program.module()(x[:1]), expected[:1], rtol=1e-4, atol=1e-5)
    maps = attention_maps(clips, x)
    assert len(maps) == 4
    assert all(views["temporal"].shape == (2, 4) and views["spatial"].shape[:2] == (2, 4) for views in maps.values())


def test_patterns_fit_the_names_of_the_network_of_images():
    _, clips = pair("torchvision/resnet18", {})
    insert_attention(clips, "se", position="layer4.*.bn2")
    assert [one.where for one in list_insertions(clips)] == ["backbone.layer4.0.bn2", "backbone.layer4.1.bn2"]


def test_tam_takes_the_frames_of_the_clip():
    _, clips = pair("torchvision/resnet18", {})
    insert_attention(clips, "tam", example=torch.zeros(1, 3, 6, 64, 64))
    assert clips(torch.randn(2, 3, 6, 64, 64)).shape == (2, 5)
    with pytest.raises(ValueError, match="built for 6 frames, the features have 4"):
        clips(torch.randn(CLIP))


def test_a_module_of_ones_own():
    network = FrameNetwork(
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    )
    insert_attention(network, "tsm", position="1", init="paper")
    assert network(torch.randn(CLIP)).shape == (2, 5)
    with pytest.raises(ValueError, match=r"expected \(N, C, T, H, W\)"):
        network(torch.randn(2, 3, 64, 64))


def test_ranks_are_refused_by_name():
    with pytest.raises(ValueError, match="is a network of clips: as_video"):
        create_model("torchvision/r3d_18", 5, ndim=3, as_video="frames")
    with pytest.raises(ValueError, match="is a network of clips"):
        create_model("torchvision/r3d_18", 5, ndim=2)
    with pytest.raises(ValueError, match="as_video 'frames' is for clips"):
        create_model("torchvision/resnet18", 5, ndim=2, as_video="frames")
    with pytest.raises(ValueError, match="as_video must be one of frames, differences, inflate, got 'frame'"):
        create_model("resnet10", 5, as_video="frame")


@pytest.mark.parametrize("name", ["torchvision/resnet18", "fast_cnn"])
@pytest.mark.parametrize("as_video", ["frames", "differences"])
def test_as_video_asks_for_clips(name, as_video):
    model = create_model(name, 5, as_video=as_video, attention="none").eval()
    assert model(torch.randn(1, 3, 2, 32, 32)).shape == (1, 5)
