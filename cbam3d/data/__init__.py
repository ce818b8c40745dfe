"""Data sets: recipes, tables, splits, sampling, transforms and loaders. Depends on video/."""

from cbam3d.video import VideoError, VideoInfo, probe_video, read_clip

__all__ = ["VideoError", "VideoInfo", "probe_video", "read_clip"]
