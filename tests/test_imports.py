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
    "data": {"data"},
    "engine": {"engine"},
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


@pytest.mark.parametrize("room", ALLOWED)
def test_imports_go_one_way(room):
    files = list((PACKAGE / room).glob("*.py"))
    assert files
    for path in files:
        for name in imported(path):
            if name.startswith("cbam3d."):
                assert name.split(".")[1] in ALLOWED[room] | {"errors", "files"}, f"{path.name} imports {name}"


def test_blocks_know_torch_only():
    for path in (PACKAGE / "attention").glob("*.py"):
        roots = {name.split(".")[0] for name in imported(path)}
        kernels = {"triton"} if path.stem == "triton_passes" else set()  # imported on GPUs only
        assert roots <= set(sys.stdlib_module_names) | {"torch", "cbam3d"} | kernels, path


def test_importing_a_block_loads_neither_decoder_nor_engine():
    heavy = ["av", "lightning_fabric", "matplotlib", "pytorchvideo"]
    code = f"import sys, cbam3d; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_module_has_a_test():
    tests = Path(__file__).parent
    for room in ALLOWED:
        modules = {path.stem for path in (PACKAGE / room).glob("*.py")} - {"__init__"}
        tested = {path.stem.removeprefix("test_") for path in (tests / room).glob("test_*.py")}
        # parts of what is tested as a whole: the blocks, the fused gates, the loaders, listing, scan
        parts = {"features", "places", "nd", "gate", "eager", "pooled", "passes", "convolve"}
        parts |= {"download", "batch", "encode", "annotations", "journal", "copies", "workers", "progress"}
        assert modules - tested <= parts, room


def test_nobody_but_the_command_line_knows_the_commands():
    for path in PACKAGE.rglob("*.py"):
        if path.parent.name != "commands":
            assert not any(name.startswith("cbam3d.commands") for name in imported(path)), path
