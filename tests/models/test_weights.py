import copy
import re
from urllib.error import URLError

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from cbam3d import CBAM2d, CBAM3d, ResNet, create_attention, create_model, insert_attention, load_weights
from cbam3d.errors import InputError
from cbam3d.models.pretrained import check_filled
from tests.models.test_resnet import randomise_norms


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


class OfficialCBAM(nn.Module):
    """The official block's layout and arithmetic, written from its paper and its key names (not from its code)."""

    class Channel(nn.Module):
        def __init__(self, channels, reduction):
            super().__init__()
            self.mlp = nn.Sequential(
                nn.Flatten(),
                nn.Linear(channels, channels // reduction),
                nn.ReLU(),
                nn.Linear(channels // reduction, channels),
            )

        def forward(self, x):
            total = self.mlp(nn.functional.avg_pool2d(x, x.shape[2:])) + self.mlp(
                nn.functional.max_pool2d(x, x.shape[2:])
            )
            return x * torch.sigmoid(total)[:, :, None, None]

    class Spatial(nn.Module):
        def __init__(self):
            super().__init__()
            self.spatial = nn.Module()
            self.spatial.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)
            self.spatial.bn = nn.BatchNorm2d(1, momentum=0.01)

        def forward(self, x):
            planes = torch.cat([x.max(1, keepdim=True)[0], x.mean(1, keepdim=True)], 1)
            return x * torch.sigmoid(self.spatial.bn(self.spatial.conv(planes)))

    def __init__(self, channels, reduction=16):
        super().__init__()
        self.ChannelGate = self.Channel(channels, reduction)
        self.SpatialGate = self.Spatial()

    def forward(self, x):
        return self.SpatialGate(self.ChannelGate(x))


def official_block(channels=32):
    block = OfficialCBAM(channels, 4)
    norm = block.SpatialGate.spatial.bn
    for tensor in (norm.weight.data, norm.running_var):
        tensor.uniform_(0.5, 1.5)
    for tensor in (norm.bias.data, norm.running_mean):
        tensor.normal_()
    return block.double()


def ours(channels=32, ndim=2, **options):
    cls = CBAM2d if ndim == 2 else CBAM3d
    return cls(channels, reduction=4, bias=True, batch_norm=True, gates=("channel", "spatial"), **options).double()


@pytest.mark.parametrize("official_form", [True, False])
@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("shape", [(2, 32, 9, 11), (3, 32, 4, 4)])
def test_official_cbam_weights_give_the_official_outputs_and_gradients(shape, train, official_form):
    theirs = official_block().train(train)
    mine = ours(**({"conv_bias": False} if official_form else {})).train(train)
    report = load_weights(mine, theirs.state_dict())
    assert report.skipped == {}
    assert report.new == []
    changed = "planes swapped from [max; mean]" + ("" if official_form else ", with a bias of 0")
    assert report.adapted == {"SpatialGate.spatial.conv.weight": changed}
    x = torch.randn(shape, dtype=torch.float64)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    outputs = [block(value) for block, value in zip((theirs, mine), inputs, strict=True)]
    torch.testing.assert_close(outputs[1], outputs[0], rtol=0, atol=1e-6)
    for output in outputs:
        (output * torch.linspace(0, 1, output.numel(), dtype=torch.float64).view_as(output)).sum().backward()
    torch.testing.assert_close(inputs[1].grad, inputs[0].grad, rtol=0, atol=1e-6)
    torch.testing.assert_close(
        mine.spatial.conv.weight.grad, theirs.SpatialGate.spatial.conv.weight.grad.flip(1), rtol=0, atol=1e-6
    )
    torch.testing.assert_close(mine.channel.mlp[0].weight.grad, theirs.ChannelGate.mlp[1].weight.grad)
    torch.testing.assert_close(mine.spatial.norm.running_var, theirs.SpatialGate.spatial.bn.running_var)


def test_2d_cbam_goes_into_3d():
    theirs, mine = official_block().eval(), ours(ndim=3).eval()
    report = load_weights(mine, theirs.state_dict())
    assert list(report.inflated) == ["SpatialGate.spatial.conv.weight"]
    x = torch.randn(2, 32, 6, 7, dtype=torch.float64)
    clip = x.unsqueeze(2).expand(-1, -1, 3, -1, -1)
    torch.testing.assert_close(mine(clip)[:, :, 1], theirs(x), rtol=0, atol=1e-10)


def test_official_names_of_a_whole_network_reach_slots_and_inserted_blocks():
    """ResNet keys with `.cbam.` in each block, as in the official checkpoints."""
    options = {"bias": True, "batch_norm": True, "gates": ("channel", "spatial")}
    own = create_model("resnet18", 10, ndim=2, attention="cbam", attention_options=options)
    state = {}
    for key, value in randomise_norms(own).state_dict().items():
        official = key.replace(".attention.", ".cbam.").replace("channel.mlp.2.", "ChannelGate.mlp.3.")
        official = official.replace("channel.mlp.0.", "ChannelGate.mlp.1.").replace(
            "spatial.norm", "SpatialGate.spatial.bn"
        )
        official = official.replace("spatial.conv.weight", "SpatialGate.spatial.conv.weight")
        flip = "SpatialGate.spatial.conv.weight" in official
        state[f"module.{official}"] = value.flip(1) if flip else value
    x = torch.randn(1, 3, 64, 64)
    expected = own.eval()(x)
    inserted = insert_attention(torchvision.models.resnet18(num_classes=10), "cbam", init="paper", **options)
    for model in (create_model("resnet18", 10, ndim=2, attention="cbam", attention_options=options), inserted):
        report = load_weights(model, state)
        assert [key for key in report.skipped if "conv.bias" not in key] == []
        torch.testing.assert_close(model.eval()(x), expected)
    doubling = insert_attention(torchvision.models.resnet18(num_classes=10), "cbam", **options)
    load_weights(doubling, state)  # its gates were 2σ, the official ones are σ
    torch.testing.assert_close(doubling.eval()(x), expected)


def test_a_gate_keeps_the_scale_it_was_trained_with():
    """Gates of σ and of 2σ have the same parameters, and are not the same."""
    theirs = create_model("torchvision/r3d_18", 5, attention="cbam").eval()  # 2σ
    mine = create_model("resnet18", 5, attention="cbam").eval()  # σ
    x = torch.randn(1, 3, 4, 32, 32)
    load_weights(mine, theirs.state_dict(), require_complete=True)
    torch.testing.assert_close(mine(x), theirs(x), rtol=0, atol=1e-5)


def test_a_checkpoint_with_attention_fills_the_attention(tmp_path):
    arguments = {"name": "torchvision/resnet18", "num_classes": 5, "ndim": 2, "attention": "cbam"}
    trained = create_model(**arguments, attention_options={"init": "paper"}).eval()
    torch.save(trained.state_dict(), tmp_path / "tuned.pth")
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(create_model(**arguments, weights=str(tmp_path / "tuned.pth")).eval()(x), trained(x))
    with pytest.raises(InputError, match=r"does not fit ResNet: .*attention.*: the network has no such key"):
        create_model("torchvision/resnet18", 5, ndim=2, weights=str(tmp_path / "tuned.pth"))


def test_weights_of_another_network_do_not_half_fill_one(tmp_path):
    torch.save(create_model("torchvision/r2plus1d_18", 5).state_dict(), tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"other\.pth does not fit ResNet: it has no conv1\.weight"):
        create_model("resnet18", 5, weights=str(tmp_path / "other.pth"))


def test_keys_that_could_mean_each_other_are_not_mixed_up():
    target = nn.ModuleDict({"model": nn.Linear(2, 2), "backbone": nn.Linear(2, 2)})
    state = {f"module.{key}": torch.randn_like(value) for key, value in target.state_dict().items()}
    load_weights(target, state, require_complete=True)
    for name in ("model", "backbone"):
        assert torch.equal(target[name].weight, state[f"module.{name}.weight"])
    where = ["layer1.0.bn1", "layer1.0.bn2"]
    both, fresh = (insert_attention(torchvision.models.resnet18(), "cbam", where, init="paper") for _ in range(2))
    load_weights(fresh, {f"module.{key}": value for key, value in both.state_dict().items()}, require_complete=True)
    assert all(torch.equal(value, both.state_dict()[key]) for key, value in fresh.state_dict().items())


def test_an_axis_never_changes_its_place():
    with pytest.raises(InputError, match="none of its 1 tensors fits"):
        load_weights(nn.Conv3d(4, 4, (1, 3, 1), bias=False), {"weight": torch.zeros(4, 4, 3, 1, 1)})
    with pytest.raises(InputError, match="meta device"):
        load_weights(nn.Linear(2, 2, device="meta"), nn.Linear(2, 2).state_dict())


@pytest.mark.parametrize("direction", ["theirs to ours", "ours to theirs"])
def test_r3d_18_and_our_resnet18_exchange_weights(direction):
    theirs = randomise_norms(torchvision.models.video.r3d_18(num_classes=9))
    mine = randomise_norms(ResNet(18, 9))
    source, target = (theirs, mine) if direction == "theirs to ours" else (mine, theirs)
    report = load_weights(target, source.state_dict(), require_complete=True)
    assert report.complete
    assert report.matched == ["fc.weight", "fc.bias"] or len(report.renamed) > 50
    x = torch.randn(1, 3, 8, 40, 40)
    torch.testing.assert_close(mine.eval()(x), theirs.eval()(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("depth", [18, 50])
def test_an_imagenet_network_inflated_gives_the_same_on_a_still_clip(depth):
    """Centre inflation is exact at every place of the clip."""
    image = randomise_norms(getattr(torchvision.models, f"resnet{depth}")(num_classes=6)).eval()
    clip = create_model(f"resnet{depth}", 6, ndim=3, as_video="inflate").eval()  # pools after the stem, too
    report = load_weights(clip, image.state_dict(), inflation="centre", require_complete=True)
    assert "conv1.weight" in report.inflated
    x = torch.randn(1, 3, 64, 64)
    still = x.unsqueeze(2).expand(-1, -1, 8, -1, -1)
    torch.testing.assert_close(clip(still), image(x), rtol=1e-4, atol=1e-4)


def test_repeated_inflation_gives_the_same_away_from_the_ends():
    """I3D's inflation sees zeros beyond the first and the last frame; further inside it is exact."""
    conv2d = nn.Conv2d(4, 5, 3, padding=1)
    conv3d = nn.Conv3d(4, 5, 3, padding=1)
    load_weights(conv3d, conv2d.state_dict())
    x = torch.randn(1, 4, 6, 6)
    out = conv3d(x.unsqueeze(2).expand(-1, -1, 5, -1, -1))
    for t in (1, 2, 3):
        torch.testing.assert_close(out[:, :, t], conv2d(x))
    bias = conv2d.bias.view(1, -1, 1, 1)
    torch.testing.assert_close(out[:, :, 0] - bias, (conv2d(x) - bias) * 2 / 3)  # two of three frames


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_the_first_convolution_takes_another_number_of_channels(channels):
    rgb = ResNet(10, 3, ndim=2, width=8).eval()
    other = ResNet(10, 3, ndim=2, width=8, in_channels=channels).eval()
    report = load_weights(other, rgb.state_dict(), require_complete=True)
    assert report.adapted == {"conv1.weight": f"adapted from 3 to {channels} input channels"}
    grey = torch.randn(1, 1, 32, 32)
    torch.testing.assert_close(other(grey.expand(-1, channels, -1, -1)), rgb(grey.expand(-1, 3, -1, -1)))


def test_a_head_for_other_classes_stays_and_is_reported():
    source, target = ResNet(10, 400, width=8), ResNet(10, 7, width=8)
    head = target.fc.weight.detach().clone()
    report = load_weights(target, source.state_dict())
    assert set(report.skipped) == {"fc.weight", "fc.bias"}
    assert report.skipped["fc.weight"] == "shape (400, 64), the network has (7, 64)"
    assert report.new == ["fc.weight", "fc.bias"]
    assert torch.equal(target.fc.weight, head)
    assert torch.equal(target.conv1.weight, source.conv1.weight)
    with pytest.raises(InputError, match=r"2 keys are unused, the first is fc\.weight"):
        load_weights(target, source.state_dict(), require_complete=True)


def test_weights_go_under_inserted_attention():
    plain = create_model("torchvision/r3d_18", 5)
    x = torch.randn(1, 3, 4, 32, 32)
    attended = insert_attention(create_model("torchvision/r3d_18", 5), "cbam", example=x)
    report = load_weights(attended, plain.state_dict())
    assert report.skipped == {}
    assert all(".inserted_attention." in key for key in report.new)
    assert torch.equal(attended.eval()(x), plain.eval()(x))


def test_3d_resnets_pytorch_layout():
    """Its checkpoints: a state dict within, behind `module.`, of a plain ResNet with a 7x7x7 stem."""
    source = ResNet(18, 5, stem_kernel_size=(7, 7, 7), stem_pool=(3, 3, 3))
    checkpoint = {
        "arch": "resnet-18",
        "epoch": 3,
        "state_dict": {f"module.{key}": value for key, value in source.state_dict().items()},
        "optimizer": {},
    }
    target = ResNet(18, 5, stem_kernel_size=(7, 7, 7), stem_pool=(3, 3, 3))
    report = load_weights(target, checkpoint, require_complete=True)
    assert report.matched == []
    x = torch.randn(1, 3, 8, 32, 32)
    assert torch.equal(target.eval()(x), source.eval()(x))
    assert source.maxpool(torch.zeros(1, 64, 8, 16, 16)).shape == (1, 64, 4, 8, 8)


def test_what_matches_exactly_goes_before_what_only_resembles():
    target = nn.ModuleDict({"conv1": nn.Conv2d(3, 4, 3)})
    state = {"module.conv1.weight": torch.ones(4, 3, 3, 3), "conv1.weight": torch.zeros(4, 3, 3, 3)}
    report = load_weights(target, state)
    assert report.skipped == {"module.conv1.weight": "conv1.weight is already set"}
    assert target["conv1"].weight.abs().sum() == 0


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_files(tmp_path, suffix):
    source, target = ResNet(10, 3, width=8), ResNet(10, 3, width=8)
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save({"model": source.state_dict(), "epoch": 4}, path)
    else:
        save_file(source.state_dict(), path)
    assert load_weights(target, path, require_complete=True).complete
    assert torch.equal(target.fc.weight, source.fc.weight)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=f"weights{suffix}: not a readable weights file"):
        load_weights(target, path)
    with pytest.raises(InputError, match="no such weights file"):
        load_weights(target, str(tmp_path / "nowhere.pth"))


def test_a_torchvision_enum_is_downloaded_and_loaded(monkeypatch):
    from torchvision.models.video import R3D_18_Weights

    source = torchvision.models.video.r3d_18()
    asked = []

    def get_state_dict(self, *args, **kwargs):
        asked.append((self, kwargs))
        return source.state_dict()

    monkeypatch.setattr(R3D_18_Weights, "get_state_dict", get_state_dict)
    target = ResNet(18, 400)
    assert load_weights(target, R3D_18_Weights.KINETICS400_V1).complete
    assert asked[0][1]["check_hash"] is True
    by_name = create_model(
        "resnet18", 400, weights="KINETICS400_V1", attention="cbam", attention_options={"init": "identity"}
    )
    x = torch.randn(1, 3, 4, 32, 32)
    torch.testing.assert_close(by_name.eval()(x), target.eval()(x), rtol=0, atol=0)
    theirs = create_model("torchvision/r3d_18", 400, weights="KINETICS400_V1", attention="cbam")
    torch.testing.assert_close(theirs.eval()(x), target.eval()(x), rtol=0, atol=1e-5)


def test_a_refusal_changes_nothing():
    target = ResNet(10, 3, width=8)
    before = copy.deepcopy(target.state_dict())
    for source, message in (
        ({"other.weight": torch.zeros(3)}, "none of its 1 tensors fits ResNet"),
        ({"epoch": 3}, "contains no named tensors"),
        ([1, 2], "contains no named tensors"),
    ):
        with pytest.raises(InputError, match=message):
            load_weights(target, source)
    with pytest.raises(InputError, match='inflation must be "repeat" or "centre"'):
        load_weights(target, before, inflation="center")
    assert all(torch.equal(value, before[key]) for key, value in target.state_dict().items())


def test_the_report_prints_as_a_table():
    text = str(load_weights(ResNet(10, 7, width=8), ResNet(10, 4, width=8).state_dict()))
    assert "fc.weight: shape (4, 64), the network has (7, 64)" in text
    counts = dict(line.split() for line in text.splitlines() if not line.startswith(" "))
    assert (counts["skipped"], counts["new"]) == ("2", "2")


def test_a_ports_block_alone_loads():
    torch.manual_seed(0)
    state = {"ca.fc1.weight": torch.randn(4, 32, 1, 1), "ca.fc2.weight": torch.randn(32, 4, 1, 1)}
    state["sa.conv1.weight"] = torch.randn(1, 2, 7, 7)
    block = CBAM2d(32, reduction=8, bias=True)
    report = load_weights(block, state)
    assert (report.new, report.skipped) == ([], {})
    x = torch.randn(2, 32, 9, 9)
    mlp = [state[f"ca.fc{i}.weight"][..., 0, 0] for i in (1, 2)]
    pooled = (x.mean((2, 3)), x.amax((2, 3)))
    after = x * torch.sigmoid(sum((p @ mlp[0].T).relu() @ mlp[1].T for p in pooled))[..., None, None]
    planes = torch.cat([after.mean(1, keepdim=True), after.amax(1, keepdim=True)], 1)
    expected = after * torch.sigmoid(torch.nn.functional.conv2d(planes, state["sa.conv1.weight"], padding=3))
    torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-5)


class OfficialTriplet(nn.Module):
    """The official block's key names, and its arithmetic from the formula: a gate pools the axis that is put first."""

    class Gate(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Module()
            self.conv.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)
            self.conv.bn = nn.BatchNorm2d(1)

        def forward(self, x):
            planes = torch.stack([x.amax(1), x.mean(1)], 1)
            return x * torch.sigmoid(self.conv.bn(self.conv.conv(planes)))

    def __init__(self):
        super().__init__()
        self.cw, self.hc, self.hw = self.Gate(), self.Gate(), self.Gate()

    def forward(self, x):
        over_cw = self.cw(x.permute(0, 2, 1, 3)).permute(0, 2, 1, 3)
        over_hc = self.hc(x.permute(0, 3, 2, 1)).permute(0, 3, 2, 1)
        return (self.hw(x) + over_cw + over_hc) / 3


@pytest.mark.parametrize("init", ["paper", "identity"])
def test_official_triplet_weights_give_the_official_outputs(init):
    torch.manual_seed(0)
    theirs, mine = OfficialTriplet().double().eval(), create_attention("triplet", 6, ndim=2, init=init).double().eval()
    for norm in (gate.conv.bn for gate in (theirs.cw, theirs.hc, theirs.hw)):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    report = load_weights(mine, theirs.state_dict())
    assert (report.new, report.skipped) == ([], {})
    assert report.adapted == {"hc.conv.conv.weight": "transposed"}
    x = torch.randn(2, 6, 8, 9, dtype=torch.float64)
    torch.testing.assert_close(mine(x), theirs(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("missing", ["conv1.weight", "layer1.0.conv1.weight", "layer1.0.bn1.bias"])
def test_the_head_is_known_by_its_place(tmp_path, missing):
    """As many classes as channels: every tensor of the first stage has the head's first axis."""
    state = create_model("resnet10", num_classes=8, ndim=2, width=8).state_dict()
    del state[missing]
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(InputError, match=rf"w\.pth does not fit ResNet: it has no {re.escape(missing)}"):
        create_model("resnet10", num_classes=8, ndim=2, width=8, weights=tmp_path / "w.pth")
    for key in ("fc.weight", "fc.bias"):
        del state[key]
    state[missing] = create_model("resnet10", num_classes=8, ndim=2, width=8).state_dict()[missing]
    report = create_model("resnet10", num_classes=8, ndim=2, width=8, weights=state).weights_report
    assert report.new == ["fc.weight", "fc.bias"]


@pytest.mark.parametrize(
    "name", ["torchvision/resnet18", "torchvision/mobilenet_v3_small", "timm/resnet18", "fast_cnn"]
)
def test_the_head_of_other_libraries_is_known_too(name):
    state = create_model(name, num_classes=5).state_dict()
    model = create_model(name, num_classes=16, weights=state)
    assert set(model.weights_report.misfits.values()) <= set(model.weights_report.new)
    assert all(model.state_dict()[key].shape[0] == 16 for key in model.weights_report.new)


def test_half_a_gate_is_refused():
    options = {"attention": "cbam", "width": 8, "attention_options": {"batch_norm": True}}
    state = create_model("resnet10", num_classes=5, ndim=2, **options).state_dict()
    lost = "layer2.0.attention.spatial.norm.weight"
    del state[lost]
    with pytest.raises(InputError, match=f"it has no {lost}"):
        create_model("resnet10", num_classes=5, ndim=2, weights=state, **options)
    without = {key: value for key, value in state.items() if "attention.spatial" not in key}
    create_model("resnet10", num_classes=5, ndim=2, weights=without, **options)  # a whole gate may be new


def test_without_a_network_the_way_out_is_said(monkeypatch, tmp_path):
    def refuse(*arguments, **options):
        raise URLError("Name or service not known")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(InputError) as error:
        create_model("torchvision/r3d_18", 400, weights="KINETICS400_V1")
    place = tmp_path / "hub" / "checkpoints" / "r3d_18-b3b3357e.pth"
    assert "https://download.pytorch.org/models/r3d_18-b3b3357e.pth" in str(error.value)
    assert f"put that file at {place}, or give a file" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_runs_folder_gives_what_its_scores_are_of(tmp_path):
    model, average = (create_model("resnet10", 4, ndim=2, width=8) for _ in range(2))
    averaged = {f"module.{key}": value for key, value in average.state_dict().items()} | {"n_averaged": torch.tensor(3)}
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    for entry, expected in ((None, model), (averaged, average)):
        torch.save({"model": model.state_dict(), "average": entry}, tmp_path / "run" / "checkpoints" / "last.ckpt")
        filled = create_model("resnet10", 4, ndim=2, width=8, weights=tmp_path / "run")
        assert all(torch.equal(value, expected.state_dict()[key]) for key, value in filled.state_dict().items())


def test_a_host_called_attention_is_no_block():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention, self.fc = nn.Conv2d(3, 8, 3), nn.Linear(8, 4)

        def forward(self, x):
            return self.fc(self.attention(x).mean((2, 3)))

    model = insert_attention(Net(), "cbam", "attention")
    state = model.state_dict()
    without = {key: value for key, value in state.items() if "inserted" not in key}
    report = load_weights(model, without)
    check_filled(report, model, set(), set(), "w.pth")  # the block is new as a whole
    del without["attention.weight"]
    report = load_weights(model, without)
    with pytest.raises(InputError, match=r"w\.pth: it has no attention\.weight"):
        check_filled(report, model, set(), set(), "w.pth")


def renamed(state):
    return {f"{i:03}": value for i, value in enumerate(state.values())}


def test_entries_find_their_places_by_order():
    torch.manual_seed(0)
    source = create_model("resnet10", 5, ndim=2, width=8)
    model = create_model("resnet10", 5, ndim=2, width=8)
    state = {key: value for key, value in source.state_dict().items() if not key.endswith("num_batches_tracked")}
    report = load_weights(model, renamed(state), match="order")
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in state.items())
    assert report.complete
    assert list(report.renamed.items())[:2] == [("000", "conv1.weight"), ("001", "bn1.weight")]
    assert str(report).startswith("matched by order, not by name")
    with pytest.raises(InputError, match="none of its"):
        load_weights(model, renamed(state))  # only when asked for


def test_a_head_for_other_classes_does_not_hinder_the_order():
    source = create_model("resnet10", 7, ndim=2, width=8)
    model = create_model("resnet10", 5, ndim=2, width=8)
    report = load_weights(model, renamed(source.state_dict()), match="order")
    assert report.new == ["fc.weight", "fc.bias"]
    assert len(report.skipped) == 2
    clips = create_model("resnet10", 5, ndim=3, as_video="frames", width=8, head="mean", weights_match="order",
                         weights=renamed(source.state_dict()))  # fmt: skip
    assert torch.equal(clips.backbone.backbone.conv1.weight, source.conv1.weight)
    assert clips.weights_report.new == ["head.classifier.weight", "head.classifier.bias"]


def test_an_order_that_does_not_fit_is_named():
    source = create_model("resnet10", 5, ndim=2, width=8).state_dict()
    model = create_model("resnet10", 5, ndim=2, width=8)
    with pytest.raises(InputError, match=r"has \d+ entries, the network \d+"):
        load_weights(
            model, renamed({key: value for key, value in source.items() if key != "conv1.weight"}), match="order"
        )
    swapped = dict(source)
    swapped["conv1.weight"] = torch.zeros(8, 3, 5, 5)
    with pytest.raises(InputError, match=r"000 and conv1.weight have the shapes \(8, 3, 5, 5\) and \(8, 3, 7, 7\)"):
        load_weights(model, renamed(swapped), match="order")
    with pytest.raises(InputError, match='match must be "name" or "order"'):
        load_weights(model, source, match="size")


def test_networks_that_ask_for_the_version_of_their_weights_are_filled():
    source = torchvision.models.mnasnet0_5(num_classes=5).state_dict()
    model = torchvision.models.mnasnet0_5(num_classes=5)
    assert load_weights(model, source).complete
    assert all(torch.equal(value, source[key]) for key, value in model.state_dict().items())


def test_torchvisions_older_names_are_known():
    densenet = torchvision.models.densenet121(num_classes=5)
    older = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", key): value + 1
        for key, value in densenet.state_dict().items()
    }
    assert len(set(older) - set(densenet.state_dict())) > 500
    report = load_weights(densenet, older)
    assert report.complete
    assert not report.matched or all(key in older for key in report.matched)
    vit = torchvision.models.VisionTransformer(32, 16, 1, 1, 16, 32, num_classes=5)
    older = {
        key.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."): value + 1
        for key, value in vit.state_dict().items()
    }
    assert load_weights(vit, older).complete
    assert torch.equal(
        vit.state_dict()["encoder.layers.encoder_layer_0.mlp.3.bias"],
        older["encoder.layers.encoder_layer_0.mlp.linear_2.bias"],
    )


@pytest.mark.parametrize("wrap", ["module", "net", "network"])
def test_other_nestings_and_counted_averages(wrap):
    source, target = (ResNet(10, 5, ndim=2, width=8) for _ in range(2))
    state = torch.optim.swa_utils.AveragedModel(source).state_dict()
    assert "n_averaged" in state
    assert load_weights(target, {wrap: state, "epoch": 3}, require_complete=True).complete
    assert torch.equal(target.fc.weight, source.fc.weight)


def test_what_is_left_of_a_file_is_said(caplog):
    model = ResNet(10, 5, ndim=2, width=8)
    load_weights(model, {"state_dict": model.state_dict(), "state_dict_ema": model.state_dict()})
    assert "taken is state_dict; the file has an average of weights too: state_dict_ema" in caplog.text
    with pytest.raises(InputError, match=r"no named tensors, but mappings \(teacher, student\): pass one of them"):
        load_weights(model, {"teacher": model.state_dict(), "student": model.state_dict()})
    broken = model.state_dict() | {"conv1.weight": torch.full_like(model.conv1.weight, torch.nan)}
    with pytest.raises(InputError, match=r"the state dict: conv1\.weight has values that are nan"):
        load_weights(model, broken)
    assert model.conv1.weight.isfinite().all()


def test_order_is_refused_where_norms_have_another():
    model = ResNet(10, 5, ndim=2, width=8)
    kinds = ["running_mean", "running_var", "weight", "bias"]
    state = model.state_dict()
    norms = {key.rpartition(".")[0] for key in state if key.endswith("running_mean")}
    moved = {}
    for key in state:
        owner = key.rpartition(".")[0]
        if owner in norms:
            moved |= {f"x.{owner}.{kind}": state[f"{owner}.{kind}"] for kind in kinds}
        else:
            moved[f"x.{key}"] = state[key]
    with pytest.raises(InputError, match=r"does not match by order: x\.bn1\.running_mean would be bn1\.weight"):
        load_weights(model, moved, match="order")


def test_the_report_in_a_line():
    report = load_weights(ResNet(10, 7, width=8), ResNet(10, 5, width=8).state_dict())
    assert report.summary.endswith(f"2 skipped (fc.weight: {report.skipped['fc.weight']}), 2 new")
    assert report.summary.startswith(f"{len(report.matched)} matched, ")
