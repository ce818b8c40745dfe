import hashlib

import numpy as np
import torch

from cbam3d.data.rng import Purpose, _mix, keys_of, numbers_of, torch_seeded, uniforms


def test_the_hash_is_splitmix64():
    """Its published first outputs from state 1234567."""
    states = np.uint64(1234567) + np.arange(1, 6, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    assert _mix(states).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


def test_numbers_are_uniform_and_unrelated():
    numbers = uniforms(keys_of(0, 3, np.arange(20000)), 4, Purpose.CROP)
    assert numbers.shape == (20000, 4)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    counts = np.stack([np.histogram(column, 20, (0, 1))[0] for column in numbers.T])
    assert ((counts - 1000) ** 2 / 950).sum(1).max() < 45  # chi-squared with 19 degrees of freedom: 0.1 % above 43.8
    related = np.corrcoef(numbers.T) - np.eye(4)
    neighbours = np.corrcoef(numbers[:-1, 0], numbers[1:, 0])[0, 1]
    assert max(np.abs(related).max(), abs(neighbours)) < 4 / 20000**0.5


def test_every_word_of_a_key_and_the_purpose_count():
    keys = {int(keys_of(*words)) for words in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0), (2**32 - 1, 0, 0))}
    assert len(keys) == 6
    one = keys_of(np.array([5]))
    assert not np.array_equal(uniforms(one, 3, Purpose.CROP), uniforms(one, 3, Purpose.FLIP))
    assert np.array_equal(uniforms(one, 3, Purpose.CROP), uniforms(one, 5, Purpose.CROP)[:, :3])


def test_torchs_generator_is_left_as_it_was():
    state = torch.random.get_rng_state()
    with torch_seeded(int(keys_of(1, 2))):
        first = torch.rand(3)
    assert torch.equal(torch.random.get_rng_state(), state)
    with torch_seeded(int(keys_of(1, 2))):
        assert torch.equal(torch.rand(3), first)


def test_names_need_not_be_text():
    assert numbers_of(["caf\udce9.avi"]) == int.from_bytes(hashlib.sha256(b"caf\xe9.avi").digest()[:4])
