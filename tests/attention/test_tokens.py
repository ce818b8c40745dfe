import torch

from cbam3d.attention.tokens import as_features, as_tokens, attend


def test_there_and_back():
    x = torch.randn(2, 3, 4, 5, 6)
    tokens = as_tokens(x)
    assert torch.equal(tokens[1, 5 * 6 * 2 + 6 * 3 + 4], x[1, :, 2, 3, 4])
    assert torch.equal(as_features(tokens, x.shape[2:]), x)


def test_attention_by_hand():
    """Scores ln 3 and 0: three parts of the first value and one of the second."""
    query, key = torch.tensor([[[2.0]]]), torch.tensor([[[0.5], [0.0]]])
    value = torch.tensor([[[4.0, 0.0], [0.0, 8.0]]])
    scale = torch.log(torch.tensor(3.0)).item()
    torch.testing.assert_close(attend(query, key, value, scale), torch.tensor([[[3.0, 2.0]]]))
