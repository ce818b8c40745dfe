import json
import shutil
import sys
from types import SimpleNamespace

import pytest
import torch

from cbam3d import create_model
from cbam3d.errors import InputError
from cbam3d.models import hub

ARGUMENTS = {"name": "resnet10", "num_classes": 4, "width": 8, "attention": "cbam"}


@pytest.fixture
def fake_hub(tmp_path, monkeypatch):
    """The hub as a folder: the three calls that are made of huggingface_hub."""
    store = tmp_path / "hub"

    class HfApi:
        def create_repo(self, repository, private, exist_ok):
            if repository == "stranger/network":
                raise OSError("403 Forbidden\nrequest id …")
            (store / repository).mkdir(parents=True, exist_ok=exist_ok)

        def upload_folder(self, repo_id, folder_path, commit_message):
            shutil.copytree(folder_path, store / repo_id, dirs_exist_ok=True)

    def snapshot_download(repository, allow_patterns):
        if not (store / repository).is_dir():
            raise OSError("404 Client Error\nrequest id …")
        return str(store / repository)

    library = SimpleNamespace(HfApi=HfApi, snapshot_download=snapshot_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", library)


def test_a_folder_gives_the_network_back(tmp_path):
    model = create_model(**ARGUMENTS).eval()
    hub.save_pretrained(model, tmp_path, **ARGUMENTS)
    again = hub.from_pretrained(tmp_path).eval()
    x = torch.randn(1, 3, 4, 32, 32)
    assert torch.equal(again(x), model(x))
    (tmp_path / "config.json").unlink()
    with pytest.raises(InputError, match=r"no readable config\.json"):
        hub.from_pretrained(tmp_path)


def test_weights_are_those_that_are_saved(tmp_path):
    source = create_model(**ARGUMENTS).state_dict()
    arguments = {**ARGUMENTS, "weights": "somewhere.pth", "weights_match": "order"}
    model = create_model(**{**arguments, "weights": source})
    hub.save_pretrained(model, tmp_path, **arguments)
    assert torch.equal(hub.from_pretrained(tmp_path).fc.weight, source["fc.weight"])


def test_pushed_and_pulled(fake_hub):
    model = create_model(**ARGUMENTS).eval()
    hub.push_to_hub(model, "someone/network", **ARGUMENTS)
    x = torch.randn(1, 3, 4, 32, 32)
    assert torch.equal(hub.from_pretrained("someone/network").eval()(x), model(x))
    filled = create_model(**ARGUMENTS, weights="hf:someone/network").eval()
    assert torch.equal(filled(x), model(x))
    with pytest.raises(InputError, match="someone/else: neither a folder nor a repository") as error:
        hub.from_pretrained("someone/else")
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match=r"stranger/network: cannot be pushed \(.*403"):
        hub.push_to_hub(model, "stranger/network", **ARGUMENTS)
    with pytest.raises(InputError, match="called owner/name, got 'network'"):
        hub.push_to_hub(model, "network", **ARGUMENTS)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([], "describes no network"),
        ({"name": 3}, "describes no network"),
        ({"name": "antigravity:Net", "num_classes": 2}, "antigravity:Net, which is code"),
        (ARGUMENTS | {"weights": "/etc/passwd"}, "names weights"),
    ],
)
def test_what_a_strangers_files_may_not_say(tmp_path, content, reason):
    hub.save_pretrained(create_model(**ARGUMENTS), tmp_path, **ARGUMENTS)
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=reason):
        hub.from_pretrained(tmp_path)
    assert "antigravity" not in sys.modules
