"""A package of others, in tests/plugin, installed where this process does not see it."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent / "plugin"
SCRIPT = """
import torch
from cbam3d import create_attention, create_model, describe_attention, list_attentions, list_heads, list_models
from cbam3d.attention.catalog import mechanisms
from cbam3d.attention.heads.catalog import heads
from cbam3d.config.bundled import find_recipe, list_recipes
from cbam3d.data.recipe import load_recipe
from cbam3d.models.zoo import is_local_model, networks
import sys

assert "doubled" in list_attentions() and "one_layer" in list_models() and "noise" in list_recipes()
assert "cbam3d_example" not in sys.modules
block = create_attention("doubled", 4)
x = torch.randn(1, 4, 2, 3, 3)
assert torch.equal(block(x), 2 * x)
assert type(create_attention("se", 16)).__module__ == "cbam3d.attention.se"
assert describe_attention("doubled", 4, (2, 3, 3)).paper == "https://example.org/doubled"
network = create_model("resnet10", 3, attention="doubled", width=8)
assert "largest" in list_heads() and not heads.is_local("largest")
headed = create_model("resnet10", 3, head="largest", head_options={"bias": False}, width=8)
assert headed(torch.randn(2, 3, 4, 32, 32)).shape == (2, 3)
assert network(torch.randn(2, 3, 4, 32, 32)).shape == (2, 3)
assert create_model("one_layer", 5)(torch.randn(2, 3, 4, 8, 8)).shape == (2, 5)
assert not mechanisms.is_local("doubled") and not is_local_model("one_layer")
assert load_recipe(find_recipe("noise")).name == "noise"
for registry, name, block in ((mechanisms, "broken", type(block)), (networks, "one_layer", type(network))):
    try:
        registry.add(name, block)
    except ValueError as error:
        assert "a name of its own" in str(error)
    else:
        raise AssertionError(f"{name} is a plugin's")
try:
    create_attention("broken", 4)
except ValueError as error:
    print(error)
"""


@pytest.fixture
def environment(tmp_path):
    """A folder with the package as an installer leaves it."""
    project = tomllib.loads((SOURCE / "pyproject.toml").read_text())["project"]
    about = tmp_path / f"cbam3d_example-{project['version']}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = (
        "\n".join([f"[{group}]", *(f"{name} = {value}" for name, value in members.items())])
        for group, members in project["entry-points"].items()
    )
    (about / "entry_points.txt").write_text("\n".join(groups) + "\n")
    (tmp_path / "cbam3d_example").symlink_to(SOURCE / "cbam3d_example")
    return {"PYTHONPATH": f"{tmp_path}:{SOURCE.parents[1]}", "PATH": "", "OMP_NUM_THREADS": "1"}


def test_a_package_adds_a_mechanism_a_head_a_network_and_a_data_set(environment):
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("broken of cbam3d-example cannot be imported (cbam3d_example:Missing: ")
