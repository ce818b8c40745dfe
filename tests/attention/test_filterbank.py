import math

import pytest
import torch

from cbam3d.attention.filterbank import filterbank, read, write


def by_definition(centre, stride, variance, count, length):
    bank = torch.zeros(len(centre), count, length, dtype=centre.dtype)
    for n in range(len(centre)):
        for i in range(count):
            mean = centre[n] + (i - count / 2 + 0.5) * stride[n]
            row = [math.exp(-((a - mean) ** 2) / (2 * variance[n])) for a in range(length)]
            bank[n, i] = torch.tensor(row, dtype=centre.dtype) / sum(row)
    return bank


def banks(sides, counts, batch=2):
    torch.manual_seed(0)
    found = []
    for side, count in zip(sides, counts, strict=True):
        centre, stride, variance = (torch.rand(batch, dtype=torch.float64) * s + 0.5 for s in (side, 2, 1))
        found.append(filterbank(centre, stride, variance, count, side))
        torch.testing.assert_close(found[-1], by_definition(centre, stride, variance, count, side))
    return found


@pytest.mark.parametrize(("sides", "counts"), [((6, 5), (3, 2)), ((4, 6, 5), (2, 3, 4))])
def test_write_is_the_adjoint_of_read(sides, counts):
    filters = banks(sides, counts)
    x = torch.randn(2, 3, *sides, dtype=torch.float64)
    patch = torch.randn(2, 3, *counts, dtype=torch.float64)
    assert read(x, filters).shape == patch.shape
    assert write(patch, filters).shape == x.shape
    torch.testing.assert_close((read(x, filters) * patch).sum(), (x * write(patch, filters)).sum())


def test_read_as_the_paper_writes_it():
    rows, columns = banks((6, 5), (3, 4))
    gain = torch.tensor([2.0, 0.5], dtype=torch.float64)
    x = torch.randn(2, 1, 6, 5, dtype=torch.float64)
    for n in range(2):
        expected = gain[n] * rows[n] @ x[n, 0] @ columns[n].T
        torch.testing.assert_close(read(x, [rows, columns], gain)[n, 0], expected)
        patch = torch.randn(2, 1, 3, 4, dtype=torch.float64)
        expected = rows[n].T @ patch[n, 0] @ columns[n] / gain[n]
        torch.testing.assert_close(write(patch, [rows, columns], gain)[n, 0], expected)


def test_narrow_filters_at_positions_crop():
    x = torch.randn(1, 2, 7, 9)
    one, thin = torch.ones(1), torch.full((1,), 1e-3)
    filters = [filterbank(torch.tensor([c]), one, thin, 3, side) for c, side in ((2.0, 7), (5.0, 9))]
    torch.testing.assert_close(read(x, filters), x[:, :, 1:4, 4:7])


def test_far_away_it_still_is_one_in_sum():
    bank = filterbank(torch.tensor([1e4, -1e4]), torch.ones(2), torch.full((2,), 1e-4), 3, 5)
    torch.testing.assert_close(bank.sum(2), torch.ones(2, 3))
