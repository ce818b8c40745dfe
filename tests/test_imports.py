"""The rooms of the house: imports go one way."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import cbam3d

PACKAGE = Path(cbam3d.__file__).parent
# room -> rooms of the package that it may import; errors and files are everybody's
ALLOWED = {
    "attention": {"attention"},
    "models": {"models", "attention"},
    "storage": {"storage"},
    "video": {"video", "storage"},
    "data": {"data", "video", "storage"},
    "engine": {"engine", "config"},
    "config": {"config"},
    "runs": {"runs", "attention", "models", "storage", "video", "data", "engine", "config"},
    "serve": {"serve", "runs", "storage", "video", "data", "engine"},
    "cli": {"cli", "serve", "runs", "attention", "models", "storage", "video", "data", "engine", "config"},
}
# libraries that one room alone knows
KNOWN_BY = {
    "rich": {"cli"},
    "shtab": {"cli"},
    "argparse": {"cli"},
    "pydantic": {"config"},
    "av": {"video"},
    "fsspec": {"storage"},
    "starlette": {"serve"},
    "uvicorn": {"cli"},
}


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_there_is_no_room_and_no_loose_module_beside_these():
    found = {path.name for path in PACKAGE.iterdir() if path.name not in ("__pycache__", "configs", "datasets")}
    assert found == {*ALLOWED, "__init__.py", "__main__.py", "errors.py", "files.py", "plugins.py", "py.typed"}


@pytest.mark.parametrize("room", ALLOWED)
def test_imports_go_one_way(room):
    files = list((PACKAGE / room).rglob("*.py"))
    assert files
    for path in files:
        for name in imported(path):
            first, room_of, *_ = *name.split("."), ""
            if first == "cbam3d" and name != "cbam3d.__version__":
                assert room_of in ALLOWED[room] | {"errors", "files", "plugins"}, f"{path.name} imports {name}"
            assert room in KNOWN_BY.get(first, {room}), f"{path.name} imports {name}"


def test_errors_and_files_know_no_room():
    for name in ("errors.py", "files.py", "plugins.py"):
        rooms = {one.split(".")[1] for one in imported(PACKAGE / name) if one.startswith("cbam3d.")}
        assert rooms <= {"errors"}


def test_nothing_but_the_command_line_prints():
    for path in PACKAGE.rglob("*.py"):
        calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        prints = any(isinstance(function, ast.Name) and function.id == "print" for function in calls)
        assert not prints or path.parent.name == "cli", path


def test_blocks_know_torch_only():
    for path in (PACKAGE / "attention").rglob("*.py"):
        roots = {name.split(".")[0] for name in imported(path)}
        kernels = {"triton"} if path.stem == "triton_kernels" else set()  # imported on GPUs only
        assert roots <= set(sys.stdlib_module_names) | {"torch", "cbam3d"} | kernels, path


def test_importing_a_block_loads_neither_decoder_nor_engine():
    heavy = ["av", "lightning_fabric", "matplotlib", "pydantic", "pytorchvideo", "rich", "torchvision"]
    code = f"import sys; from cbam3d import CBAM3d; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("command", ["train", "predict", "list", "evaluate"])
def test_help_does_not_wait_for_torch(command):
    code = f"import sys; from cbam3d.cli.{command} import parser; parser().format_help(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_every_public_name_is_there():
    for name in cbam3d.__all__:
        assert getattr(cbam3d, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'tarin'"):
        cbam3d.tarin  # noqa: B018


# modules that are parts of what is tested as a whole -> the test of that
PARTS = {
    "attention": {
        "features": "insert",
        "gate": "catalog",
        "nd": "nd",
        "cpu": "gating",
        "planes": "gating",
        "reference": "gating",
        "positions": "insert",
        "clips": "insert",
    },
    "models": {
        "download": "hub",
        "pretrained": "zoo",
        "own_input": "transformers",
        "torchvision": "zoo",
        "pytorchvideo": "zoo",
        "timm": "zoo",
    },
    "storage": {"moving": "reading", "remote": "reading"},
    "video": {"encode": "decode"},
    "data": {
        "annotations": "listing",
        "batch": "loader",
        "malloc": "loader",
        "journal": "scan",
        "parameters": "augment",
        "workers": "loader",
    },
    "engine": {"progress": "train", "sharding": "train", "update": "train", "waiting": "train"},
    "config": {"section": "reading", "keys": "schema", "bundled": "reading"},
    "runs": {
        "annotate": "predictor",
        "checkpoint": "run",
        "comparison_table": "comparison",
        "cost": "comparison",
        "data": "training",
        "dry_run": "training",
        "inputs": "predictor",
        "processes": "processes",
        "progress": "run",
        "results": "evaluation",
        "event_evaluation": "several_labels",
        "explainer": "explanation",
        "table": "training",
        "trainer": "network",
        "windows": "predictor",
    },
    "serve": {"jobs": "app", "look": "app"},
    "cli": {"console": "cli", "main": "cli"}
    | dict.fromkeys(("train", "report", "export", "features", "list", "push", "serve"), "cli"),
}


@pytest.mark.parametrize("room", ALLOWED)
def test_every_module_has_a_test(room):
    modules = {path.stem for path in (PACKAGE / room).rglob("*.py")} - {"__init__"}
    tested = {path.stem.removeprefix("test_") for path in (Path(__file__).parent / room).rglob("test_*.py")}
    assert modules - tested <= set(PARTS[room])
    assert set(PARTS[room].values()) <= tested
