"""Files -> batches. Knows neither attention/ nor models/."""

from cbam3d.data.decode import VideoError, VideoInfo, probe_video, read_clip

__all__ = ["VideoError", "VideoInfo", "probe_video", "read_clip"]
