import torch
from PIL import Image

from cbam3d.engine.plots import plot_confusion, plot_curves, plot_steps
from cbam3d.engine.records import EpochTable


def test_plots_are_pictures(tmp_path):
    table = EpochTable(tmp_path / "metrics.csv", 0)
    table.add({"epoch": 1, "train_loss": 0.5, "loss": 0.7, "video_top1": 0.2})
    plot_curves(table, tmp_path / "curves.png", ["video_top1"])
    (tmp_path / "steps.csv").write_text("step,loss,learning_rate\n1,2.5,0.1\n2,nan,0.1\n3,1.5,0.1\n")
    plot_steps(tmp_path / "steps.csv", tmp_path / "steps.png")
    plot_confusion(torch.tensor([[3, 1], [0, 0]]), ["a", "b"], tmp_path / "confusion.png")
    for name in ("curves.png", "steps.png", "confusion.png"):
        with Image.open(tmp_path / name) as picture:
            assert min(picture.size) > 200
            assert len(picture.convert("RGB").getcolors(1 << 20) or []) > 20
