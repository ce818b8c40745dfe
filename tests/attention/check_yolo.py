"""Attention in detectors: Ultralytics' YOLO, built from its YAML without a download. Prints "equal".

A program of its own, as Ultralytics changes Pillow and PyTorch in the process that imports it; run by test_yolo.py.
"""

import copy

import torch
from ultralytics.cfg import get_cfg
from ultralytics.nn.tasks import DetectionModel

from cbam3d import insert_attention, list_insertions, remove_attention

# positions, and where they are in yolov5n and in yolov8n
POSITIONS = [
    (["model.4", "model.6", "model.8"], {"yolov5n": "4 6 8", "yolov8n": "4 6 8"}),
    ("stage", {"yolov5n": "0 2 4 6 10 14 17 20 23", "yolov8n": "0 2 4 6 9 12 15 18 21"}),
    ("last_stage", {"yolov5n": "23", "yolov8n": "21"}),
    (
        "residual",
        {
            "yolov5n": "2.m.0.cv2 4.m.0.cv2 4.m.1.cv2 6.m.0.cv2 6.m.1.cv2 6.m.2.cv2 8.m.0.cv2",
            "yolov8n": "2.m.0.cv2 4.m.0.cv2 4.m.1.cv2 6.m.0.cv2 6.m.1.cv2 8.m.0.cv2",
        },
    ),
    (
        "block",
        {
            "yolov5n": "2.m.0 4.m.0 4.m.1 6.m.0 6.m.1 6.m.2 8.m.0",
            "yolov8n": "2.m.0 4.m.0 4.m.1 6.m.0 6.m.1 8.m.0",
        },
    ),
]


def check_boxes(detector: DetectionModel, position: str | list[str], where: str) -> None:
    """Boxes are bit-equal after insertion, and everything is as before after removal."""
    model = copy.deepcopy(detector)
    keys = list(model.state_dict())
    image = torch.rand(2, 3, 64, 96)
    boxes = model(image)[0]
    insert_attention(model, "cbam", position)
    assert [one.where for one in list_insertions(model)] == [f"model.{part}" for part in where.split()]
    assert torch.equal(model(image)[0], boxes)
    remove_attention(model)
    assert list(model.state_dict()) == keys
    assert torch.equal(model(image)[0], boxes)


def check_step(detector: DetectionModel) -> None:
    """A training step changes the attention."""
    model = insert_attention(copy.deepcopy(detector), "cbam", ["model.4", "model.6", "model.8"]).train()
    batch = {
        "img": torch.rand(2, 3, 64, 64),
        "batch_idx": torch.tensor([0.0, 1.0]),
        "cls": torch.tensor([[3.0], [7.0]]),
        "bboxes": torch.tensor([[0.5, 0.5, 0.4, 0.6], [0.3, 0.6, 0.5, 0.5]]),
    }
    blocks = [one.block for one in list_insertions(model)]
    before = copy.deepcopy(blocks)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    loss = model(batch)[0].sum()
    loss.backward()
    optimizer.step()
    assert loss.isfinite()
    for block, old in zip(blocks, before, strict=True):
        assert any(not torch.equal(p, q) for p, q in zip(block.parameters(), old.parameters(), strict=True))
    assert all(p.isfinite().all() for p in model.parameters())


if __name__ == "__main__":
    for name in ("yolov5n", "yolov8n"):
        torch.manual_seed(0)
        detector = DetectionModel(f"{name}.yaml", verbose=False).eval()
        detector.args = get_cfg()  # gains of the losses
        for position, where in POSITIONS:
            check_boxes(detector, position, where[name])
        check_step(detector)
    print("equal")
