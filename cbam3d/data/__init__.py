"""Files -> batches. Knows neither attention/ nor models/."""

from cbam3d.data.container import VideoError
from cbam3d.data.decode import read_clip
from cbam3d.data.probe import VideoInfo, probe_video

__all__ = ["VideoError", "VideoInfo", "probe_video", "read_clip"]
