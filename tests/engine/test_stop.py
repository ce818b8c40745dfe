import os
import signal

import pytest

from cbam3d.engine.stop import StopRequest


def test_a_signal_asks_and_a_second_ctrl_c_interrupts():
    request = StopRequest()
    before = signal.getsignal(signal.SIGTERM)
    with request.listening():
        assert request.reason == ""
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.reason == "SIGTERM"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before


def test_time_is_a_reason():
    assert StopRequest(max_hours=1.0).reason == ""
    assert StopRequest(max_hours=1e-12).reason == "train.max_hours is over"
