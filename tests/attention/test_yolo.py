"""Attention in detectors: Ultralytics' YOLO, built from its YAML without a download."""

import copy

import pytest
import torch

from cbam3d import insert_attention, list_insertions, remove_attention

# positions, and where they are in yolov5n and in yolov8n
POSITIONS = [
    (["model.4", "model.6", "model.8"], None),
    ("stage", {"yolov5n": "0 2 4 6 10 14 17 20 23", "yolov8n": "0 2 4 6 9 12 15 18 21"}),
    ("last_stage", {"yolov5n": "23", "yolov8n": "21"}),
    ("residual", {"yolov5n": "2.m.0.cv2 4.m.0.cv2 4.m.1.cv2 6.m.0.cv2 6.m.1.cv2 6.m.2.cv2 8.m.0.cv2"}),
    ("block", {"yolov8n": "2.m.0 4.m.0 4.m.1 6.m.0 6.m.1 8.m.0"}),
]


@pytest.fixture(scope="module")
def detectors(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("YOLO_CONFIG_DIR", str(tmp_path_factory.mktemp("ultralytics")))  # it writes settings
        patch.setenv("YOLO_OFFLINE", "true")
        tasks = pytest.importorskip("ultralytics.nn.tasks")
        from ultralytics.cfg import get_cfg

        found = {}
        for name in ("yolov5n", "yolov8n"):
            torch.manual_seed(0)
            found[name] = tasks.DetectionModel(f"{name}.yaml", verbose=False).eval()
            found[name].args = get_cfg()  # gains of the losses
        yield found


@pytest.mark.parametrize("name", ["yolov5n", "yolov8n"])
@pytest.mark.parametrize(("position", "where"), POSITIONS)
def test_boxes_stay_the_same_and_removal_restores(detectors, name, position, where):
    model = copy.deepcopy(detectors[name])
    keys = list(model.state_dict())
    image = torch.rand(2, 3, 64, 96)
    boxes = model(image)[0]
    insert_attention(model, "cbam", position)
    found = [one.where for one in list_insertions(model)]
    if where is None:
        assert found == position
    elif name in where:
        assert found == [f"model.{part}" for part in where[name].split()]
    assert torch.equal(model(image)[0], boxes)
    remove_attention(model)
    assert list(model.state_dict()) == keys
    assert torch.equal(model(image)[0], boxes)


@pytest.mark.parametrize("name", ["yolov5n", "yolov8n"])
def test_a_training_step_reaches_the_attention(detectors, name):
    torch.manual_seed(0)
    model = insert_attention(copy.deepcopy(detectors[name]), "cbam", ["model.4", "model.6", "model.8"]).train()
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
