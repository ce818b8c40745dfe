import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(importlib.util.find_spec("ultralytics") is None, reason="no Ultralytics here")
def test_attention_in_detectors(tmp_path):
    """Boxes bit-equal at five positions, a training step, removal: yolov5n and yolov8n."""
    script = Path(__file__).with_name("check_yolo.py")
    quiet = {
        "YOLO_CONFIG_DIR": str(tmp_path),
        "YOLO_OFFLINE": "true",
        "YOLO_AUTOINSTALL": "false",
        "YOLO_VERBOSE": "false",
    }
    done = subprocess.run([sys.executable, script], env={**os.environ, **quiet}, capture_output=True, text=True)
    assert done.stdout.strip().endswith("equal"), done.stderr[-2000:]
