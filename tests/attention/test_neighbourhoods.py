import pytest
import torch

from cbam3d.attention.neighbourhoods import inside, window_size, windows


def test_by_hand():
    x = torch.arange(6.0).reshape(1, 1, 2, 3)
    found = windows(x, (3, 3))
    assert found.shape == (1, 1, 2, 3, 3, 3)
    assert found[0, 0, 0, 0].tolist() == [[0, 0, 0], [0, 0, 1], [0, 3, 4]]
    assert windows(x, (1, 3), "replicate")[0, 0, 1, 2].tolist() == [[4, 5, 5]]
    assert inside(x, (3, 3))[0, 0].tolist() == [[False, False, False], [False, True, True], [False, True, True]]


def test_the_middle_of_a_window_is_the_position_itself():
    x = torch.randn(2, 3, 4, 5, 6)
    assert torch.equal(windows(x, (1, 3, 5))[..., 0, 1, 2], x)
    assert inside(x, (1, 3, 5))[..., 0, 1, 2].all()


def test_even_windows_have_no_middle():
    with pytest.raises(ValueError, match="must be odd"):
        window_size((2, 3), 2)
    assert window_size(5, 2) == (5, 5)
    assert window_size(5, 3) == (1, 5, 5)
    assert window_size([3, 5, 7], 3) == (3, 5, 7)
