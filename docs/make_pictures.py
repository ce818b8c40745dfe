"""Draw the pictures of README and docs: python docs/make_pictures.py"""

import csv
import json
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from cbam3d.data.motion import CLASSES, NUM_FRAMES, render_video

HERE = Path(__file__).parent
SHOWN = range(0, NUM_FRAMES, 3)
# tables of `cbam3d compare` in docs/results, and what each compares
COMPARED = {
    "motion_frames": "motion, an image network on frames",
    "avletters_frames": "AVLetters, an image network on frames",
    "fight_frames": "fight, an image network on frames",
    "avletters_differences": "AVLetters, frames or their differences",
    "motion_heads": "motion, heads on frozen features, against their mean",
    "avletters_3d": "AVLetters, a 3D ResNet from scratch",
    "insertion": "AVLetters, inserted into a trained 3D ResNet",
}
COLOURS = {"better": "tab:green", "worse": "tab:red"}


def draw_motions(path: Path) -> None:
    """Eight frames of a video of each class."""
    figure = Figure(figsize=(8, 8.2), layout="constrained")
    axes = figure.subplots(len(CLASSES), len(SHOWN))
    for row, (i, label) in zip(axes, enumerate(CLASSES), strict=True):
        frames, _ = render_video(label, seed=0, group=i + 1)
        for ax, number in zip(row, SHOWN, strict=True):
            ax.imshow(frames[number])
            ax.set(xticks=[], yticks=[])
        row[0].set_ylabel(label.replace("_counter_", " counter-\n").replace("_", " "), fontsize=8)
    for ax, number in zip(axes[-1], SHOWN, strict=True):
        ax.set_xlabel(f"frame {number}", fontsize=8)
    figure.savefig(path, dpi=72)


def draw_rooms(path: Path) -> None:
    """The rooms of the house; an arrow leads from a room to one that it knows."""
    figure = Figure(figsize=(9.6, 7.1), layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(0, 9.6), ylim=(-1.5, 5.6))
    axes.axis("off")

    def room(x: float, y: float, width: float, height: float, name: str, what: str, colour: str) -> None:
        axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0.05", fc=colour, ec="0.3"))
        axes.text(x + width / 2, y + height - 0.1, name, ha="center", va="top", fontsize=11, weight="bold")
        axes.text(x + width / 2, y + height - 0.4, what, ha="center", va="top", fontsize=8.5, linespacing=1.4)

    def arrow(x: float, y: float, to_x: float, to_y: float) -> None:
        axes.annotate("", (to_x, to_y), (x, y), arrowprops={"arrowstyle": "-|>", "color": "0.3"})

    room(0.2, 4.75, 6.0, 0.65, "cli/", "one thin file per command: parse, call, print", "#f5e6d3")
    room(6.6, 4.75, 2.8, 0.65, "serve/", "the page in the browser", "#f8dcc8")
    room(0.2, 3.2, 9.2, 1.1, "runs/", "the product as a library: train, evaluate, predict, explain, compare, export,\n"
         "report, prepare, push, open_dataset; where the rooms meet", "#efefef")  # fmt: skip
    room(0.2, 1.65, 2.1, 1.05, "models/", "networks, weights;\nadapters of libraries", "#dcf0dc")
    room(0.2, 0.15, 2.1, 1.05, "attention/", "mechanisms, ops/,\ninsertion/ (torch only)", "#c8e6c8")
    room(2.7, 1.65, 2.1, 1.05, "data/", "recipes, tables, splits,\nsampling, loaders", "#d8e8f5")
    room(2.7, 0.15, 2.1, 1.05, "video/", "a file -> frames:\npackets, decoding", "#c4dcf0")
    room(2.7, -1.35, 2.1, 1.05, "storage/", "files wherever they\nare: disks, archives, URLs", "#b0d0ec")
    room(5.2, 1.65, 2.0, 1.05, "engine/", "the loop, checkpoints,\nscores, plots", "#f0dcec")
    room(7.6, 1.65, 1.8, 1.05, "config/", "the schema on\none page; reading it", "#f5f0d0")
    arrow(3.2, 4.68, 3.2, 4.38)
    arrow(8.0, 4.68, 8.0, 4.38)
    arrow(6.27, 5.07, 6.53, 5.07)
    for x in (1.25, 3.75, 6.2, 8.5):
        arrow(x, 3.13, x, 2.78)
    for x in (1.25, 3.75):
        arrow(x, 1.58, x, 1.28)
    arrow(3.75, 0.08, 3.75, -0.22)
    arrow(7.27, 2.15, 7.53, 2.15)
    figure.savefig(path, dpi=110)


def draw_results(path: Path) -> None:
    """What each mechanism changes, against the same network without it, with 95 % intervals."""
    tables = {}
    for name, title in COMPARED.items():
        with open(HERE / "results" / f"{name}.csv", newline="") as file:
            tables[title] = list(csv.DictReader(file))
    heights = [len(rows) + 0.8 for rows in tables.values()]
    figure = Figure(figsize=(7.6, 0.38 * sum(heights) + 0.5), layout="constrained")
    grid = figure.subplots(len(tables), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    wide, *usual = (_limits(rows) for rows in tables.values())
    shared = min(low for low, _ in usual), max(high for _, high in usual)
    for number, (axes, (title, (first, *others))) in enumerate(zip(grid, tables.items(), strict=True)):
        seeds = len(json.loads(first["scores"]))
        axes.set_title(f"{title}; without: {_score(first)} ({seeds} seeds)", fontsize=9, loc="left")
        for y, row in enumerate(others):
            middle, low, high = (100 * float(row[name]) for name in ("difference", "low", "high"))
            colour = COLOURS.get(row["verdict"], "0.45")
            axes.plot([low, high], [y, y], color=colour, linewidth=2)
            axes.plot(middle, y, "o", color=colour)
            axes.annotate(_score(row), (1.01, y), xycoords=("axes fraction", "data"), fontsize=8, va="center")
        names = [next(iter(row.values())).replace("position=[maxpool, residual]", "") for row in others]
        axes.set(yticks=range(len(others)), ylim=(len(others) - 0.4, -0.6))
        axes.set_yticklabels([name.replace(", )", ")").replace("()", "") for name in names], fontsize=8)
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set_xlim(*(wide if number == 0 else shared))
        axes.tick_params(axis="x", labelsize=8)
        axes.grid(axis="x", alpha=0.3)
    grid[0].set_xlabel("points, on another scale than below", fontsize=8)
    grid[-1].set_xlabel(
        "points of video_top1 against the network without, 95 % intervals; green better, red worse, grey within noise",
        fontsize=8,
    )
    figure.savefig(path, dpi=110)


def _limits(rows: list[dict[str, str]]) -> tuple[float, float]:
    """Of an axis that shows all intervals."""
    return min(110 * float(row["low"]) for row in rows), max(110 * float(row["high"]) for row in rows)


def _score(row: dict[str, str]) -> str:
    return f"{100 * float(row['mean']):.1f} ± {100 * float(row['standard_deviation']):.1f} %"


if __name__ == "__main__":
    draw_motions(HERE / "motion.png")
    draw_rooms(HERE / "architecture.png")
    draw_results(HERE / "what_helps.png")
