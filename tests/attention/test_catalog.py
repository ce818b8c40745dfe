import pytest
import torch

from cbam3d import CBAM, create_attention, list_attentions


def test_creates_by_name_with_options():
    block = create_attention("cbam", 32, ndim=2, reduction=4, gates=("spatial",))
    assert isinstance(block, CBAM)
    assert block.gates == ("spatial",)
    assert block(torch.zeros(1, 32, 4, 4)).shape == (1, 32, 4, 4)


def test_the_list_is_what_can_be_created():
    assert "cbam" in list_attentions()
    for name in list_attentions():
        assert create_attention(name, 8, ndim=3)(torch.zeros(1, 8, 2, 4, 4)).shape == (1, 8, 2, 4, 4)


def test_an_unknown_name_or_option_names_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'cbam'"):
        create_attention("cbma", 8)
    with pytest.raises(ValueError, match="did you mean 'reduction'"):
        create_attention("cbam", 8, reducton=4)
