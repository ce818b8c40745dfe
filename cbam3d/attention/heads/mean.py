"""The usual head: the mean over all positions, and a linear layer."""

from torch import Tensor, nn

from cbam3d.attention.nd import spatial_axes


class MeanHead(nn.Module):
    """Mean over positions, dropout and a linear layer.

    Args:
        channels: of the features.
        num_classes: K.
        dropout: probability before the linear layer.

    Shapes: (N, channels, *S), of any rank -> logits (N, K).

    Examples:
        >>> from cbam3d.attention.heads import MeanHead
        >>> head = MeanHead(512, num_classes=10, dropout=0.2)
        >>> head(torch.randn(2, 512, 8, 7, 7)).shape
        torch.Size([2, 10])
    """

    def __init__(self, channels: int, num_classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.dropout(x.mean(spatial_axes(x))))
