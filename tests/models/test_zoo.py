import pytest
import torch

from cbam3d import CBAM, create_model, list_models


def test_every_listed_model_can_be_created():
    with torch.device("meta"):
        for name in list_models():
            assert create_model(name, 3)(torch.zeros(2, 3, 4, 32, 32)).shape == (2, 3)


def test_attention_goes_into_every_block():
    model = create_model("resnet18", 3, width=8, attention="cbam", attention_options={"gates": ("channel",)})
    blocks = [module for module in model.modules() if isinstance(module, CBAM)]
    assert [block.gates for block in blocks] == [("channel",)] * 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet19"}, "did you mean 'resnet18'"),
        ({"name": "resnet18", "widht": 8}, "did you mean 'width'"),
        ({"name": "resnet18", "attention": "cbmm"}, "did you mean 'cbam'"),
        ({"name": "resnet18", "attention_options": {"reduction": 4}}, "attention_options without attention"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        create_model(num_classes=3, **arguments)
