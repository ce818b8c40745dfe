import sys

import pytest

from cbam3d.errors import InputError
from cbam3d.models.repository import check_name, download, upload


@pytest.mark.parametrize("name", ["network", "a/b/c", "/network", "owner/", ""])
def test_a_repository_is_called_owner_and_name(name):
    check_name("owner/network")
    with pytest.raises(InputError, match="a repository is called owner/name"):
        check_name(name)


def test_what_is_missing_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # importing it fails
    for call in (lambda: download("owner/network"), lambda: upload(tmp_path, "owner/network")):
        with pytest.raises(InputError, match=r'needs huggingface_hub: pip install "cbam3d\[hub\]"'):
            call()
