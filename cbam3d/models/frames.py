"""An image network as a network of clips: every frame goes through it, and the outputs are joined.

As in TSN (Wang et al., ECCV 2016, https://arxiv.org/abs/1608.00859) the logits of a clip are the mean of those of its
frames. Such a network knows nothing of their order, until temporal attention is inserted into it.
"""

import torch
from torch import Tensor, nn

from cbam3d.attention.insertion.clips import ClipFrames
from cbam3d.attention.nd import check_rank


class FrameNetwork(nn.Module):
    """Run an image network on all frames of a clip together.

    `insert_attention` sees the frames of a clip as one (N, C, T, h, w) at every position in it, so that mechanisms for
    clips work inside (TAM, TSM, CBAM's temporal gate). They count the frames of the last clip: call the
    whole, not its backbone; with activation checkpointing, give clips of one length between two backward passes.

    Args:
        backbone: maps images (N, C, H, W) to logits (N, K), or to features (N, C', *S).
        differences: show it, in place of a frame's colours, their mean and its changes (see `changes`); C is 3.

    Shapes: (N, C, T, H, W) -> the mean of the frames' logits, (N, K); of features, (N, C', T, H', W'); of tokens,
        (N, C', T, L, 1).

    Raises:
        ValueError: an input that is not a batch of clips.

    Examples:
        >>> from cbam3d.models.frames import FrameNetwork
        >>> from torchvision.models import resnet18
        >>> model = FrameNetwork(resnet18(num_classes=10))
        >>> model(torch.randn(2, 3, 8, 32, 32)).shape
        torch.Size([2, 10])
    """

    def __init__(self, backbone: nn.Module, differences: bool = False) -> None:
        super().__init__()
        self.backbone, self.differences = backbone, differences
        self.clip_frames = ClipFrames()

    def forward(self, x: Tensor) -> Tensor:
        check_rank(x, 3)
        self.clip_frames.num_frames = x.shape[2]
        if self.differences:
            x = changes(x)
        outputs = self.clip_frames.to_clips(self.backbone(self.clip_frames.to_frames(x)))
        if outputs.ndim == 4:  # tokens
            return outputs[..., None]
        return outputs.mean(2) if outputs.ndim == 3 else outputs


def changes(x: Tensor) -> Tensor:
    """The mean over the colours, and twice its change from the frame before and to the next, 0 at the ends of the clip.

    Differences of frames show motion and hide what stands still (Wang et al., ECCV 2016, who stack those of colours).

    Shapes: (N, C, T, H, W) -> (N, 3, T, H, W).
    """
    grey = x.mean(1, keepdim=True)
    change = 2 * (grey[:, :, 1:] - grey[:, :, :-1])  # neighbours differ by less than frames do
    end = torch.zeros_like(grey[:, :, :1])
    return torch.cat([grey, torch.cat([end, change], 2), torch.cat([change, end], 2)], 1)
