"""Video decoding and encoding. Independent of data sets."""

from cbam3d.video.container import VideoError
from cbam3d.video.decode import read_clip
from cbam3d.video.probe import VideoInfo, probe_video

__all__ = ["VideoError", "VideoInfo", "probe_video", "read_clip"]
