import pytest

from cbam3d import compare
from cbam3d.config import Config
from cbam3d.errors import InputError
from cbam3d.runs.variants import parse_words


def test_words_may_have_options_in_brackets():
    none, se, cbam = parse_words(
        "none, se(reduction=8),cbam(gates=[channel, spatial], init=identity)", "attention", Config()
    )
    assert (none.word, none.slug) == ("none", "none")
    assert none.values == {"model": {"attention": "none", "attention_options": {}}}
    assert se.values == {"model": {"attention": "se", "attention_options": {"reduction": 8}}}
    assert cbam.values["model"]["attention_options"] == {"gates": ["channel", "spatial"], "init": "identity"}
    tsm = parse_words("none,tsm(position=[maxpool, residual])", "attention", Config())[1]
    assert tsm.config(Config()).model.attention_options == {"position": ["maxpool", "residual"]}
    assert cbam.slug == "cbam-gates-channel-spatial-init-identity"


def test_heads_may_be_compared_instead():
    base = Config().override({"model.head_options": {"grid": 1, "dim": 8}})
    mean, gltr = (v.config(base).model for v in parse_words("mean,gltr(dilations=[1, 2])", "head", base))
    assert (mean.head, mean.head_options) == ("mean", {"grid": 1})
    assert (gltr.head, gltr.head_options) == ("gltr", {"grid": 1, "dim": 8, "dilations": [1, 2]})
    assert mean.attention == base.model.attention
    for words, reason in (("mean,gltr(dmi=8)", "did you mean 'dim'"), ("mean,se", "head"), ("mean", "head names")):
        with pytest.raises(InputError, match=reason):
            parse_words(words, "head", base)
    with pytest.raises(InputError, match="either mechanisms"):
        compare("motion", "none,se", heads="mean,gltr")


def test_a_mechanism_takes_those_options_of_the_recipe_that_it_has():
    base = Config().override({"model.attention_options": {"init": "identity", "gates": ["channel"]}})
    none, se, cbam = (v.config(base).model for v in parse_words("none,se,cbam(gates=[spatial])", "attention", base))
    assert (none.attention, none.attention_options) == ("none", {})
    assert (se.attention, se.attention_options) == ("se", {"init": "identity"})
    assert cbam.attention_options == {"init": "identity", "gates": ["spatial"]}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("none,simamm", "did you mean 'simam'"),
        ("none", "at least two"),
        ("se,se", "each once"),
        ("none,se(reductoin=8)", "did you mean 'reduction'"),
        ("none,se(8)", "expected option=value"),
        ("none,se(reduction=8", "expected a mechanism"),
        ("none,se(reduction={)", "cannot read the value"),
        ("none,none(init=identity)", "option of none 'init'"),
    ],
)
def test_what_is_no_mechanism_is_one_line(text, reason):
    with pytest.raises(InputError, match=reason) as raised:
        parse_words(text, "attention", Config())
    assert "\n" not in str(raised.value)
