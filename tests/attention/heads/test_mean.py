import torch

from cbam3d.attention.heads.mean import MeanHead


def test_by_hand():
    head = MeanHead(1, 1, changes=True)
    with torch.no_grad():
        head.classifier.weight.copy_(torch.tensor([[1.0, 10.0]]))
        head.classifier.bias.fill_(100)
    x = torch.tensor([1.0, 2.0, 6.0, 6.0]).reshape(1, 1, 2, 1, 2)  # two frames of two positions
    assert head(x).item() == 100 + 15 / 4 + 10 * (5 + 4) / 2
    assert head(x[:, :, :1]).item() == 100 + 1.5  # a single frame does not change


def test_the_plain_head_is_a_linear_layer_of_the_mean():
    head, x = MeanHead(4, 3), torch.randn(2, 4, 3, 2, 2)
    torch.testing.assert_close(head(x), x.mean((2, 3, 4)) @ head.classifier.weight.T + head.classifier.bias)
