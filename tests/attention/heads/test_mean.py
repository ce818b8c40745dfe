import torch

from cbam3d.attention.heads.mean import MeanHead


def test_it_is_a_linear_layer_of_the_mean():
    head, x = MeanHead(4, 3), torch.randn(2, 4, 3, 2, 2)
    torch.testing.assert_close(head(x), x.mean((2, 3, 4)) @ head.classifier.weight.T + head.classifier.bias)
