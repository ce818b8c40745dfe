import torch

from cbam3d.attention.interpolation import sample


def test_places_by_hand():
    x = torch.tensor([[[[0.0, 10.0], [20.0, 30.0]]]])
    places = torch.tensor([[[[0.0, 0.0], [1.0, 0.0]], [[0.5, 0.5], [1.0, 0.25]], [[-0.5, 1.0], [3.0, 0.0]]]])
    expected = torch.tensor([[[[0.0, 20.0], [15.0, 22.5], [5.0, 0.0]]]])
    torch.testing.assert_close(sample(x, places), expected)


def test_every_position_of_a_clip_is_itself():
    x = torch.randn(2, 3, 4, 5, 6, dtype=torch.float64)
    lines = [torch.arange(n, dtype=torch.float64) for n in x.shape[2:]]
    places = torch.stack(torch.meshgrid(*lines, indexing="ij"), dim=-1).expand(2, -1, -1, -1, -1)
    torch.testing.assert_close(sample(x, places), x)
    assert sample(x.bfloat16(), places.float()).dtype == torch.bfloat16
