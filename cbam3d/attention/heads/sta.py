"""STA: spatial-temporal attention without parameters.

Fu, Wang, Wei, Huang, AAAI 2019, https://arxiv.org/abs/1811.04129

    g_t(i) = |x_t(i)|² / sum_j |x_t(j)|²;   s(t, k) = sum of g_t over the horizontal part k;   S = s / sum_t s
    part k of the first map: of the frame with the highest S(t, k);   of the second: sum_t S(t, k) x_t
    logits = W [mean of the first ; mean of the second]
"""

import torch
from torch import Tensor, nn

from cbam3d.attention.gate import positive, wide
from cbam3d.attention.nd import as_clips


class STA(nn.Module):
    """For each horizontal part, the frame in which it is strongest, and the sum of all frames by that strength.

    Args:
        channels: of the features.
        num_classes: K.
        parts: horizontal parts; at most as many as there are rows.
        dropout: probability before the last layer.

    Shapes: (N, channels, T, H, W) -> logits (N, K). An image is a clip of one frame, (N, channels, T) its frames.

    The order of frames does not matter. The paper adds a term to the loss: `frame_disagreement`.

    Examples:
        >>> from cbam3d.attention.heads import STA
        >>> head = STA(512, num_classes=10, parts=7)
        >>> head(torch.randn(2, 512, 8, 7, 7)).shape
        torch.Size([2, 10])
    """

    def __init__(self, channels: int, num_classes: int, parts: int = 4, dropout: float = 0.0) -> None:
        super().__init__()
        positive("parts", parts)
        self.parts = parts
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(2 * channels, num_classes)

    def scores(self, x: Tensor) -> Tensor:
        """S, (N, T, parts): how strong each part is in each frame, 1 in sum over the frames."""
        strength = torch.stack([part.sum((2, 3)) for part in self._parts(strengths(x))], dim=2)
        return strength / strength.sum(1, keepdim=True).clamp_min(torch.finfo(strength.dtype).tiny)

    def forward(self, x: Tensor) -> Tensor:
        x = as_clips(x)
        scores = self.scores(x)
        sums = torch.stack([part.sum((3, 4)) for part in self._parts(wide(x))], dim=3)  # (N, C, T, parts)
        best = scores.argmax(1)[:, None, None].expand(-1, sums.shape[1], -1, -1)
        positions = x.shape[3] * x.shape[4]
        first = sums.gather(2, best).sum((2, 3)) / positions
        second = (sums * scores[:, None]).sum((2, 3)) / positions
        return self.classifier(self.dropout(torch.cat([first, second], dim=1).to(x.dtype)))

    def _parts(self, x: Tensor) -> tuple[Tensor, ...]:
        """Along H."""
        return x.tensor_split(min(self.parts, x.shape[-2]), dim=-2)


def strengths(x: Tensor) -> Tensor:
    """g of STA, the share of each position in the squared norm of its frame: (N, C, T, H, W) -> (N, T, H, W)."""
    squares = wide(as_clips(x)).square().sum(1)
    total = squares.sum((2, 3), keepdim=True).clamp_min(torch.finfo(squares.dtype).tiny)
    return squares / total


def frame_disagreement(x: Tensor) -> Tensor:
    """STA's inter-frame regularisation: how much the strengths of frames differ, a term to add to a loss.

    The paper takes the Frobenius norm of the difference between two random frames; this is its mean over all pairs of
    neighbouring frames, and the mean over the batch.

    Args:
        x: features, (N, C, T, H, W).

    Returns: a scalar, 0 for equal frames or for one.

    Examples:
        >>> from cbam3d.attention.heads import frame_disagreement
        >>> still = torch.randn(2, 64, 1, 4, 4).expand(-1, -1, 8, -1, -1)  # all frames alike
        >>> frame_disagreement(still).abs().max() < 1e-4
        tensor(True)
    """
    shares = strengths(x).flatten(2)
    differences = shares[:, 1:] - shares[:, :-1]
    if not differences.shape[1]:
        return shares.sum() * 0
    return torch.linalg.vector_norm(differences, dim=2).mean()
