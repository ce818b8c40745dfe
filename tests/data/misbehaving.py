"""A decoder that hangs or crashes. Imported by processes that read videos, so it imports little."""

import os
import signal
import time

from cbam3d.video.probe import probe_video


def probe(task):
    """0.mp4 hangs, 1.mp4 crashes, others are read."""
    path = task[0]
    if path.name == "0.mp4":
        time.sleep(60)
    if path.name == "1.mp4":
        os.kill(os.getpid(), signal.SIGSEGV)
    return probe_video(*task)
