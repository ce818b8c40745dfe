"""Draw the pictures of README and docs: python docs/make_pictures.py"""

from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from cbam3d.data.motion import CLASSES, NUM_FRAMES, render_video

HERE = Path(__file__).parent
SHOWN = range(0, NUM_FRAMES, 3)


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
    figure = Figure(figsize=(9, 5.2), layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(0, 9), ylim=(0, 5.2))
    axes.axis("off")

    def room(x: float, y: float, width: float, height: float, name: str, what: str, colour: str) -> None:
        axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0.05", fc=colour, ec="0.3"))
        axes.text(x + width / 2, y + height - 0.12, name, ha="center", va="top", fontsize=11, weight="bold")
        axes.text(x + width / 2, y + height - 0.42, what, ha="center", va="top", fontsize=8.5, linespacing=1.4)

    def arrow(x: float, y: float, to_x: float, to_y: float) -> None:
        axes.annotate("", (to_x, to_y), (x, y), arrowprops={"arrowstyle": "-|>", "color": "0.3"})

    room(1.9, 4.35, 5.2, 0.7, "commands/", "train, evaluate, compare, explain, report, predict, prepare, …", "#f5e6d3")
    room(1.9, 2.75, 5.2, 1.15, "where the rooms meet",
         "config, keys, parsing · sources: configuration → data set\n"
         "assemble: → network and loaders · results: → files\n"
         "saved, classifier: a run → predictions", "#efefef")  # fmt: skip
    room(0.15, 1.0, 2.7, 1.25, "data/", "files → batches\nrecipes, decoding, sampling,\naugmentation", "#d8e8f5")
    room(3.2, 1.3, 2.6, 0.95, "models/", "networks, weights", "#dcf0dc")
    room(3.2, 0.1, 2.6, 0.8, "attention/", "blocks, insertion (torch only)", "#c8e6c8")
    room(6.15, 1.0, 2.7, 1.25, "engine/", "network and loaders → run\nthe loop, checkpoints,\nscores, plots", "#f0dcec")
    arrow(4.5, 4.28, 4.5, 3.98)
    for x in (1.5, 4.5, 7.5):
        arrow(4.5 + (x - 4.5) * 0.75, 2.68, x, 2.33)
    arrow(4.5, 1.23, 4.5, 0.98)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    draw_motions(HERE / "motion.png")
    draw_rooms(HERE / "architecture.png")
