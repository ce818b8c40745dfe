import torch

from cbam3d.attention.heads.statistics import StatisticsHead


def test_by_hand():
    head = StatisticsHead(1, 1).eval()
    with torch.no_grad():
        head.classifier.weight.copy_(torch.tensor([[1.0, 10.0, 100.0]]))
        head.classifier.bias.fill_(1000)
        head.norm.eps = 0.0
    x = torch.tensor([1.0, 3.0, 6.0, 6.0]).reshape(1, 1, 2, 1, 2)  # frames with means of 2 and 6
    assert head(x).item() == 1000 + 4 + 10 * 2 + 100 * 4
    assert head(x[:, :, :1]).item() == 1000 + 2  # a single frame neither varies nor changes


def test_the_order_of_frames_counts_in_the_changes_alone():
    torch.manual_seed(0)
    head = StatisticsHead(4, 3).eval()
    x = torch.randn(2, 4, 5, 2, 2)
    shuffled = x[:, :, [3, 1, 4, 0, 2]]
    assert not torch.allclose(head(x), head(shuffled))
    with torch.no_grad():
        head.classifier.weight[:, 8:] = 0
    torch.testing.assert_close(head(x), head(shuffled))
