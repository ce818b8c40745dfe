"""Videos that the benchmarks render themselves."""

import subprocess
from pathlib import Path

from imageio_ffmpeg import get_ffmpeg_exe


def render(path: Path, source: str, options: str) -> None:
    """Encode one of FFmpeg's synthetic sources, a lavfi graph, with 4:2:0 chroma and FFmpeg's options."""
    path.parent.mkdir(parents=True, exist_ok=True)
    command = [get_ffmpeg_exe(), "-v", "error", "-y", "-f", "lavfi", "-i", source, "-pix_fmt", "yuv420p"]
    subprocess.run([*command, *options.split(), str(path)], check=True)
