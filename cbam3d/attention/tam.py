"""TAM: temporal adaptive module.

Liu, Wang, Wu, Qian, Lu, ICCV 2021, https://arxiv.org/abs/2005.06803

    p = mean of x over H, W, (C, T);   y = x · σ(conv1 relu(BN(conv_K p))), along T, (C, T)
    w = softmax(W2 relu(BN(W1 p_c))), K weights per channel;   out = y convolved with w along T
"""

from torch import Tensor, nn
from torch.nn import functional as F

from cbam3d.attention.gate import Blend, Init, hidden_channels, positive
from cbam3d.attention.nd import check_clips, check_rank, same_padding


class TAM(Blend):
    """Temporal adaptive module: frames are weighted, then convolved with a kernel computed from the clip.

    Args:
        channels: number of input channels C.
        num_frames: T of the features; fixed, as layers have weights for it.
        kernel_size: K, odd, of the local branch's first convolution and of the adaptive kernel.
        reduction: the local branch has `max(1, channels // reduction)` hidden channels.
        init: "paper", or "identity": the output blends in from 0 (see `Blend`), as TAM returns new features.
        ndim: 3; images have no time axis.

    Shapes: (N, C, T, H, W) -> the same; `attention_map` is (N, C, T, 1, 1), of the local branch.

    Raises:
        ValueError: ndim other than 3, an even kernel, or features with another number of frames.

    Examples:
        >>> from cbam3d.attention import TAM
        >>> block = TAM(64, num_frames=8)
        >>> block(torch.randn(2, 64, 8, 14, 14)).shape
        torch.Size([2, 64, 8, 14, 14])
    """

    ranks = (3,)

    def __init__(
        self,
        channels: int,
        num_frames: int,
        kernel_size: int = 3,
        reduction: int = 4,
        ndim: int = 3,
        init: Init = "paper",
    ) -> None:
        super().__init__(init)
        check_clips("tam", ndim)
        positive("num_frames", num_frames)
        self.num_frames, self.kernel_size = num_frames, kernel_size
        (self.padding,) = same_padding(kernel_size, 1)
        hidden = hidden_channels(channels, reduction)
        self.local = nn.Sequential(
            nn.Conv1d(channels, hidden, kernel_size, padding=self.padding, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Conv1d(hidden, channels, 1, bias=False),
            nn.Sigmoid(),
        )
        self.kernel = nn.Sequential(
            nn.Linear(num_frames, 2 * num_frames, bias=False),
            nn.BatchNorm1d(2 * num_frames),
            nn.ReLU(),
            nn.Linear(2 * num_frames, kernel_size, bias=False),
            nn.Softmax(1),
        )

    def attention_map(self, x: Tensor) -> Tensor:
        """The local branch's frame weights."""
        return self.local(self._pool(x))[..., None, None]

    def transform(self, x: Tensor) -> Tensor:
        n, c, t = x.shape[:3]
        pooled = self._pool(x)
        weighted = x * self.local(pooled)[..., None, None]
        kernels = self.kernel(pooled.reshape(n * c, t)).reshape(n, c, self.kernel_size)
        padded = F.pad(weighted, [0, 0, 0, 0, self.padding, self.padding])
        taps = [padded[:, :, k : k + t] * kernels[:, :, k, None, None, None] for k in range(self.kernel_size)]
        out = taps[0]
        for tap in taps[1:]:
            out = out + tap
        return out

    def _pool(self, x: Tensor) -> Tensor:
        check_rank(x, 3)
        if x.shape[2] != self.num_frames:
            raise ValueError(f"tam was built for {self.num_frames} frames, the features have {x.shape[2]}")
        return x.mean((3, 4))
