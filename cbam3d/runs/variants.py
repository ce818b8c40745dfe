"""What a comparison compares: mechanisms, heads, or values of any keys, each under the word that names it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cbam3d.attention import attention_options
from cbam3d.attention.heads.catalog import head_options
from cbam3d.config import Config
from cbam3d.engine.checkpoint import changed_keys
from cbam3d.errors import InputError, check_options
from cbam3d.files import load_mapping, parse_yaml

# what decides which items are trained and scored
OF_ITEMS = ("data.recipe", "data.root", "data.groups", "data.annotations", "data.manifest", "data.split")
OF_ITEMS += ("data.test_fraction", "data.allow_leaks")
_SHARED = ("run.dir", "run.seed", *OF_ITEMS)  # by all trainings


@dataclass(frozen=True)
class Variant:
    """A variant of the recipe: its name in the table, and the keys that it changes."""

    word: str
    values: Mapping[str, Any]

    @property
    def slug(self) -> str:
        """The word as the name of a folder."""
        return re.sub(r"[^\w.]+", "-", self.word).strip("-")

    def config(self, base: Config) -> Config:
        """The recipe with these values."""
        return base.override(self.values)


def read_choices(
    attentions: str | Sequence[str] | None,
    heads: str | Sequence[str] | None,
    variants: str | Path | Mapping[str, Mapping[str, Any]] | None,
    base: Config,
) -> tuple[str, list[Variant]]:
    """What differs (attention, head or variant), and what is compared, the first with each of the others.

    Args:
        attentions: mechanisms: a list, or a text with commas.
        heads: heads, in the same way.
        variants: names with keys, or the path of a YAML file of the same.
        base: the recipe.

    Raises:
        InputError: none of the three or several, or what `parse_words` and `read_variants` raise.
    """
    if sum(asked is not None for asked in (attentions, heads, variants)) != 1:
        raise InputError("compare: name either mechanisms (--attention), heads (--head) or --variants")
    if variants is not None:
        return "variant", read_variants(variants, base)
    part, words = ("attention", attentions) if heads is None else ("head", heads)
    return part, parse_words(words if isinstance(words, str) else ", ".join(words or ()), part, base)


def read_variants(source: str | Path | Mapping[str, Mapping[str, Any]], base: Config) -> list[Variant]:
    """Names with keys -> variants.

    Args:
        source: {"plain": {}, "mixup": {"augment.mixup": 0.4}}, or the path of a YAML file of the same.
        base: the recipe.

    Raises:
        InputError: an unknown key, a wrong value, a key that all trainings share, or fewer than two variants.
    """
    content = source if isinstance(source, Mapping) else load_mapping(Path(source), "file of variants")
    variants = []
    for word, values in content.items():
        if not isinstance(values, Mapping):
            raise InputError(f"compare: variant {word}: expected keys with values, got {values!r}")
        variant = Variant(str(word), values)
        try:
            changed = changed_keys(base.plain(), variant.config(base).plain())
        except InputError as error:
            raise InputError(f"compare: variant {word}: {error}") from None
        if shared := [key for key in _SHARED if key in changed]:
            raise InputError(f"compare: variant {word}: {shared[0]} is the same for all trainings")
        variants.append(variant)
    _check_number(variants, "variants", ", ".join(map(str, content)))
    return variants


def parse_words(text: str, part: str, base: Config) -> list[Variant]:
    """`none,se,cbam(gates=[channel, spatial], reduction=8)` -> variants, each named by the word that asks for it.

    Of the recipe's own options of its mechanism or head, each takes those that it has.

    Args:
        text: names, with options in brackets.
        part: "attention" for mechanisms, "head" for heads.
        base: the recipe.

    Raises:
        InputError: an unknown mechanism, head or option, a value that is no YAML, fewer than two, or one twice.
    """
    variants = []
    for word in _split(text):
        match = re.fullmatch(r"(\w+)(?:\((.*)\))?", word)
        if match is None:
            raise InputError(f"compare: expected a mechanism such as se or cbam(reduction=8), got {word!r}")
        name, inside = match[1], match[2] or ""
        options: dict[str, Any] = {}
        for pair in _split(inside):
            key, is_option, value = pair.partition("=")
            if not is_option:
                raise InputError(f"compare: {word}: expected option=value, got {pair!r}")
            try:
                options[key.strip()] = parse_yaml(value)
            except ValueError:
                raise InputError(f"compare: {word}: cannot read the value {value!r}") from None
        try:
            known = _options_of(part, name)
            check_options(name, options, known)
        except ValueError as error:
            raise InputError(f"compare: {error}") from None
        kept = {key: value for key, value in getattr(base.model, f"{part}_options").items() if key in known}
        variants.append(Variant(word, {"model": {part: name, f"{part}_options": kept | options}}))
    _check_number(variants, part, text)
    return variants


def _options_of(part: str, name: str) -> set[str]:
    """The options of a mechanism and where it is inserted; of a head and the grid that it is given."""
    if part == "head":
        return {*head_options(name), "grid"}
    return set() if name == "none" else {*attention_options(name), "position"}


def _check_number(variants: Sequence[Variant], option: str, text: str) -> None:
    slugs = [variant.slug for variant in variants]
    if len(variants) < 2 or len(set(slugs)) < len(slugs):
        raise InputError(f"compare: {option} names at least two, each once, got {text!r}")


def _split(text: str) -> list[str]:
    """Parts between those commas that are in no brackets."""
    parts, depth, start = [], 0, 0
    for i, sign in enumerate(text):
        depth += (sign in "([{") - (sign in ")]}")
        if sign == "," and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    return [part.strip() for part in [*parts, text[start:]] if part.strip()]
