"""How often intervals of this package are wrong, by simulation: see docs/EVALUATION.md.

    python benchmarks/verdicts.py [--repeats 300]

Equal recipes are compared, whose items, groups and seeds have effects of their own; and accuracies that are known are
estimated. A 95 % interval may miss 5 of 100.
"""

import argparse

import numpy as np
from tables import table

from cbam3d.engine import scores

GROUPS, EACH = 20, 8  # of the test videos
SEEDS = (2, 3, 5, 10)
# groups, videos of each, accuracy, standard deviation of a group's log odds
ACCURACIES = [(5, 10, 0.7, 1.0), (10, 26, 0.6, 0.5), (20, 8, 0.9, 0.5), (20, 1, 0.97, 0.0), (60, 1, 0.97, 0.0)]


def missed_zero(num_seeds: int, spread: float, repeats: int, rng: np.random.Generator) -> float:
    """Share of comparisons of equals whose interval does not hold 0."""
    units = np.repeat(np.arange(GROUPS), EACH)
    missed = 0
    for _ in range(repeats):
        easy = rng.standard_normal(len(units)) + rng.standard_normal(GROUPS)[units]

        def trainings(easy: np.ndarray = easy) -> np.ndarray:
            noise = 0.7 * rng.standard_normal((num_seeds, len(units))) + spread * rng.standard_normal((num_seeds, 1))
            return easy + noise > 0

        _, low, high = scores.compare_trainings(trainings(), trainings(), units)
        missed += not low <= 0 <= high
    return missed / repeats


def points_between_seeds(spread: float, rng: np.random.Generator) -> float:
    """Standard deviation of the accuracy over seeds, in points."""
    accuracies = [(1.58 * rng.standard_normal(4000) + spread * rng.standard_normal() > 0).mean() for _ in range(300)]
    return 100 * float(np.std(accuracies))


def covered(groups: int, each: int, accuracy: float, spread: float, repeats: int, rng: np.random.Generator) -> float:
    """Share of intervals of an accuracy that hold it."""
    units, odds = np.repeat(np.arange(groups), each), np.log(accuracy / (1 - accuracy))

    def chances(count: int) -> np.ndarray:
        return 1 / (1 + np.exp(-odds - spread * rng.standard_normal(count)))

    truth, inside = chances(400_000).mean(), 0
    for _ in range(repeats):
        low, high = scores.accuracy_interval(rng.random(len(units)) < chances(groups)[units], units)
        inside += low <= truth <= high
    return inside / repeats


def main() -> None:
    parser = argparse.ArgumentParser(description="Simulated error rates")
    parser.add_argument("--repeats", type=int, default=300, help="simulations of each cell")
    repeats, rng = parser.parse_args().repeats, np.random.default_rng(0)
    scores.REPEATS = 500
    rows = []
    for spread in (0.05, 0.2, 0.5, 1.0):
        found = [f"{missed_zero(seeds, spread, repeats, rng):.0%}" for seeds in SEEDS]
        rows.append([f"{points_between_seeds(spread, rng):.1f}", *found])
    table(["points between seeds", *(f"{seeds} seeds" for seeds in SEEDS)], rows)
    print()
    rows = [[str(g), str(n), f"{a:.0%}", f"{covered(g, n, a, s, repeats, rng):.0%}"] for g, n, a, s in ACCURACIES]
    table(["groups", "videos of each", "accuracy", "intervals that hold it"], rows)


if __name__ == "__main__":
    main()
