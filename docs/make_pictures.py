"""Draw the pictures of the README: python docs/make_pictures.py"""

from pathlib import Path

from matplotlib.figure import Figure

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


if __name__ == "__main__":
    draw_motions(HERE / "motion.png")
