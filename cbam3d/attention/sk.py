"""SK: selective kernel.

Li, Wang, Hu, Yang, CVPR 2019, https://arxiv.org/abs/1903.06586

    U_i = relu(BN(conv_i x)),   z = relu(BN(W GAP ΣU_i)),   V = Σ a_i U_i,   a = softmax over i of (A_i z)
"""

import torch
from torch import Tensor, nn

from cbam3d.attention.gate import Blend, Init, expand_as, hidden_channels, positive
from cbam3d.attention.nd import BATCH_NORM, CONV, check_ndim, check_rank, per_frame, same_padding, spatial_axes


class SK(Blend):
    """Selective kernel: each channel chooses between branches with different receptive fields.

    Args:
        channels: number of input channels C.
        num_branches: convolutions with kernel 3; branch i has dilation i along H and W (3x3, 5x5, …).
        reduction: z has `max(min_hidden, channels // reduction)` units.
        min_hidden: their minimum.
        groups: of the convolutions, at most; the largest divisor of C up to it is used. The paper uses 32.
        ndim: 2 for images, 3 for clips: the kernels span three frames.
        init: "paper", or "identity": the output blends in from 0 (see `Blend`), as SK returns new features.

    Shapes: (N, C, *S) -> the same; `attention_map` is (N, num_branches, C), which sums to 1 over the branches.

    BatchNorm of z needs more than one sample in training.

    Raises:
        ValueError: fewer than two branches.

    Examples:
        >>> from cbam3d.attention import SK
        >>> block = SK(64, num_branches=3)
        >>> block(torch.randn(2, 64, 4, 8, 8)).shape
        torch.Size([2, 64, 4, 8, 8])
    """

    def __init__(
        self,
        channels: int,
        num_branches: int = 2,
        reduction: int = 16,
        min_hidden: int = 32,
        groups: int = 32,
        ndim: int = 3,
        init: Init = "paper",
    ) -> None:
        super().__init__(init)
        self.ndim = check_ndim(ndim)
        if num_branches < 2:
            raise ValueError(f"num_branches must be at least 2, got {num_branches}")
        positive("groups and min_hidden", groups, min_hidden)
        hidden = hidden_channels(channels, reduction, min_hidden)
        groups = max(divisor for divisor in range(1, groups + 1) if channels % divisor == 0)

        def branch(dilation: int) -> nn.Sequential:
            apart = per_frame(dilation, ndim)
            padding = same_padding(3, ndim, apart)
            conv = CONV[ndim](channels, channels, 3, padding=padding, dilation=apart, groups=groups, bias=False)
            return nn.Sequential(conv, BATCH_NORM[ndim](channels), nn.ReLU())

        self.branches = nn.ModuleList(branch(i + 1) for i in range(num_branches))
        self.reduce = nn.Sequential(nn.Linear(channels, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU())
        self.select = nn.Linear(hidden, num_branches * channels, bias=False)

    def attention_map(self, x: Tensor) -> Tensor:
        """The branch weights a."""
        return self._select(self._branches(x))

    def transform(self, x: Tensor) -> Tensor:
        features = self._branches(x)
        weights = self._select(features).unbind(1)
        return torch.stack([expand_as(a, u) * u for a, u in zip(weights, features, strict=True)]).sum(0)

    def _branches(self, x: Tensor) -> list[Tensor]:
        check_rank(x, self.ndim)
        return [branch(x) for branch in self.branches]

    def _select(self, features: list[Tensor]) -> Tensor:
        pooled = torch.stack([u.mean(spatial_axes(u)) for u in features]).sum(0)
        logits = self.select(self.reduce(pooled))
        return logits.reshape(pooled.shape[0], len(features), pooled.shape[1]).softmax(1)
