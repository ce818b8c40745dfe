"""RSTAN: recurrent spatial-temporal attention network.

Du, Wang, Qiao, IEEE Transactions on Image Processing 27(3), 2018, https://doi.org/10.1109/TIP.2017.2778563

    at step t, with the state h before it:
    α_τ = softmax_s(wᵀ tanh(A x_τs + B h));   z_τ = sum_s α_τs x_τs    in every frame τ
    β = softmax_τ(vᵀ tanh(D z_τ + E h));      c = sum_τ β_τ z_τ        over the frames
    h, m = LSTM([z_t ; c], h, m);   logits = W mean_t h
"""

import torch
from torch import Tensor, nn

from cbam3d.attention.gate import positive
from cbam3d.attention.nd import as_clips


class RSTAN(nn.Module):
    """An LSTM over the frames that looks, at each step, at positions and frames that its state asks for.

    Args:
        channels: of the features.
        num_classes: K.
        dim: channels of the state, and of the attention.
        dropout: probability before the last layer.

    Shapes: (N, channels, T, H, W) -> logits (N, K). An image is a clip of one frame, (N, channels, T) its frames.

    The paper's fusion with optical flow and its regularisation by boxes around actors are left out. Time, and memory in
    training, grow with T² H W.

    Examples:
        >>> from cbam3d.attention.heads import RSTAN
        >>> head = RSTAN(512, num_classes=10, dim=64)
        >>> head(torch.randn(2, 512, 8, 7, 7)).shape
        torch.Size([2, 10])
    """

    def __init__(self, channels: int, num_classes: int, dim: int = 128, dropout: float = 0.0) -> None:
        super().__init__()
        positive("dim", dim)
        self.of_positions, self.of_frames = nn.Linear(channels, dim), nn.Linear(channels, dim)
        self.by_state = nn.ModuleList(nn.Linear(dim, dim, bias=False) for _ in range(2))
        self.score_positions, self.score_frames = (nn.Linear(dim, 1, bias=False) for _ in range(2))
        self.cell = nn.LSTMCell(2 * channels, dim)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(dim, num_classes)

    def attention_map(self, x: Tensor) -> Tensor:
        """The weight of each position, the mean over the steps, (N, 1, T, H, W), 1 on average."""
        clip = as_clips(x)
        _, weights = self._run(clip)
        mean = weights.mean(1) * weights.shape[2:].numel()
        return mean.reshape(x.shape[0], 1, *x.shape[2:])

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self._run(as_clips(x))
        return self.classifier(self.dropout(states.mean(1)))

    def _run(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The states of all steps, (N, T, dim), and the weights of positions at each, (N, T, T, H·W)."""
        tokens = x.flatten(3).permute(0, 2, 3, 1)  # (N, T, H·W, C)
        projected = self.of_positions(tokens)
        state = memory = projected.new_zeros(x.shape[0], self.cell.hidden_size)
        states, weights = [], []
        for step in range(x.shape[2]):
            asked_positions, asked_frames = (layer(state) for layer in self.by_state)
            scores = self.score_positions(torch.tanh(projected + asked_positions[:, None, None])).squeeze(-1)
            in_frame = scores.softmax(2)
            frames = (in_frame[..., None] * tokens).sum(2)  # (N, T, C)
            scores = self.score_frames(torch.tanh(self.of_frames(frames) + asked_frames[:, None])).squeeze(-1)
            among_frames = scores.softmax(1)
            context = (among_frames[..., None] * frames).sum(1)
            state, memory = self.cell(torch.cat([frames[:, step], context], dim=1), (state, memory))
            states.append(state)
            weights.append(in_frame * among_frames[..., None])
        return torch.stack(states, dim=1), torch.stack(weights, dim=1)
