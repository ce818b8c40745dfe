"""What the page says of a video, beyond what its server does."""

import numpy as np

from cbam3d.serve.look import Looker


def test_of_equal_confidences_all_count():
    look = object.__new__(Looker)
    look.known = np.array([[1.0, 1.0]] * 50 + [[1.0, 0.0]] * 50)  # in the order of their classes
    assert look._in_words(1.0) == "Of 100 held-out videos with a probability of 100%, 50% were right."
    look.known = np.stack([np.linspace(0, 0.99, 100), np.arange(100) >= 50], 1)
    assert look._in_words(0.9) == "Of 20 held-out videos with a probability of 80% to 99%, 100% were right."
    look.known = np.empty((0, 2))
    assert look._in_words(0.9) is None
