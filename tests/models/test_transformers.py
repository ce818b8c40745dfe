"""Transformers of video, made small from their configurations."""

import json

import pytest
import torch

from cbam3d import create_model
from cbam3d.errors import InputError
from cbam3d.models.libraries import transformers as adapter
from cbam3d.models.pretrained import find_weights, own_input

library = pytest.importorskip("transformers")

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_labels": 9}
KINDS = {
    "VideoMAE": {"image_size": 32, "num_frames": 4, "intermediate_size": 64},
    "Timesformer": {"image_size": 32, "num_frames": 4, "intermediate_size": 64},
    "Vivit": {"image_size": 32, "num_frames": 4, "intermediate_size": 64, "tubelet_size": [2, 16, 16]},
    "VJEPA2": {"crop_size": 32, "frames_per_clip": 4, "mlp_ratio": 2, "pred_hidden_size": 32}
    | {"pred_num_hidden_layers": 1, "pred_num_attention_heads": 2},
}
CLIP = (2, 3, 4, 32, 32)


@pytest.fixture(scope="module", params=KINDS)
def saved(request, tmp_path_factory):
    """A folder with the files of a network, and its logits of a clip."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp(request.param)
    config = getattr(library, f"{request.param}Config")(**SMALL, **KINDS[request.param])
    model = library.AutoModelForVideoClassification.from_config(config).eval()
    model.save_pretrained(folder)
    facts = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    (folder / "preprocessor_config.json").write_text(json.dumps(facts))
    clip = torch.randn(CLIP)
    with torch.no_grad():
        return folder, clip, model(**{model.main_input_name: clip.transpose(1, 2)}).logits


def test_it_computes_what_the_library_computes(saved):
    folder, clip, expected = saved
    assert torch.equal(create_model(f"hf/{folder}", 9, weights="pretrained").eval()(clip), expected)


def test_a_head_for_other_classes_is_all_that_is_new(saved):
    folder, clip, _ = saved
    model = create_model(f"hf/{folder}", 5, weights="pretrained").eval()
    assert model.weights_report.new == ["model.classifier.weight", "model.classifier.bias"]
    assert model(clip).shape == (2, 5)


@pytest.mark.parametrize("head", ["mean", "attention"])
def test_its_features_take_another_head(saved, head):
    folder, clip, _ = saved
    options = {"num_heads": 2} if head == "attention" else {}
    model = create_model(f"hf/{folder}", 5, weights="pretrained", head=head, head_options=options)
    features = model.features(clip)
    assert features.shape[:3] == (2, 32, 1)
    assert features.shape[3] in (8, 9, 17)  # tokens, and a class token where there is one
    model(clip).sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())
    frozen = {name.split(".")[3] for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen <= {"predictor", "query_tokens"}  # of V-JEPA 2's pretraining, and of its own head


def test_tokens_are_not_taken_for_frames(saved):
    folder, clip, _ = saved
    model = create_model(f"hf/{folder}", 5, weights="pretrained", head="statistics", head_options={"grid": 1}).eval()
    features = model.features(clip)
    assert features.shape == (2, 32, 1, 1, 1)
    torch.testing.assert_close(features.flatten(1), model.backbone(clip).mean(2))


def test_its_files_tell_what_it_wants(saved):
    found = own_input(f"hf/{saved[0]}", 3, None)
    assert found == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 4, 32)


def test_mistakes_are_told_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match=r"neither a folder nor a repository.*into a folder, and give hf/FOLDER"):
        create_model(f"hf/{tmp_path / 'none'}", 5)
    library.BertConfig(num_labels=3, **{k: v for k, v in SMALL.items() if k != "num_labels"}).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="Unrecognized configuration class"):
        create_model(f"hf/{tmp_path}", 5)
    with pytest.raises(ValueError, match=r"are .pretrained., or a file; got 'best'"):
        find_weights(f"hf/{tmp_path}", 3, "best")
    monkeypatch.setattr(adapter, "import_module", lambda name: (_ for _ in ()).throw(ImportError(name)))
    with pytest.raises(InputError, match=r'needs transformers: pip install "cbam3d\[transformers\]"'):
        create_model("hf/owner/name", 5)


def test_code_of_a_repository_is_never_run(tmp_path):
    (tmp_path / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    facts = {"model_type": "strange", "auto_map": {"AutoConfig": "code.Config"}}
    (tmp_path / "config.json").write_text(json.dumps(facts))
    with pytest.raises(InputError, match="neither a folder nor"):
        create_model(f"hf/{tmp_path}", 2)
    with pytest.raises(ValueError, match="trust_remote_code is no option"):
        create_model(f"hf/{tmp_path}", 2, trust_remote_code=True)
    assert not (tmp_path / "ran").exists()
