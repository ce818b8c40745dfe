"""What a section of a configuration is made of: checked fields, and how their types are put into words."""

import os
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import cache
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict, ValidationError

from cbam3d.errors import InputError

T = TypeVar("T")
Fixed = Annotated[T, "fixed"]  # cannot be changed on resume: its steps would not be those of the run that was begun
Switch = Annotated[bool, Strict()]
PathText = Annotated[str, Field(min_length=1), AfterValidator(os.path.expanduser)]  # ~ is the home, as in a shell
Integer = Annotated[int, Strict()]
Count = Annotated[int, Strict(), Field(ge=1)]
CountOrZero = Annotated[int, Strict(), Field(ge=0)]
Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
NonNegative = Annotated[float, Strict(), Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Strict(), Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Strict(), Field(ge=0, le=1)]
BetaParameter = Annotated[float, Strict(), Field(ge=0, le=1000)]


class Section(BaseModel):
    """Frozen fields, checked when they are set.

    Raises:
        InputError: an unknown key (the nearest one is named), a value of another type or out of bounds, or values that
            exclude each other.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    def __init__(self, **values: Any) -> None:
        values = {name: os.fspath(one) if isinstance(one, os.PathLike) else one for name, one in values.items()}
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise InputError(_message(type(self), values, error.errors(include_url=False)[0])) from None

    @classmethod
    def key_names(cls) -> list[str]:
        """The dotted name of every key of the section, or of the sections in it."""
        parts = [entry.annotation for entry in cls.model_fields.values()]
        inner = [part for part in parts if isinstance(part, type) and issubclass(part, Section)]
        prefix = cls.__name__.removesuffix("Config").lower()
        return [name for part in inner for name in part.key_names()] or [
            f"{prefix}.{name}" for name in cls.model_fields
        ]


@cache
def schema_of(section: type[Section], name: str) -> dict[str, Any]:
    """The JSON schema of a key."""
    return section.model_json_schema()["properties"][name]


def in_words(section: type[Section], name: str) -> str:
    """What the values of a key are: "an integer >= 1 or null"."""
    schema = schema_of(section, name)
    return " or ".join(_kind(one) for one in schema.get("anyOf", [schema]))


def plain(value: Any) -> Any:
    """Plain data, for YAML and checkpoints: tuples become lists.

    Raises:
        ValueError: anything else than numbers, text, null, lists and mappings with text as keys.
    """
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ValueError(f"no plain data: {value!r}")


# what other programs call it
_ELSEWHERE = {
    "lr": "train.learning_rate",
    **dict.fromkeys(("wd", "decay"), "train.weight_decay"),
    **dict.fromkeys(("bs", "batch", "batchsize"), "train.batch_size"),
    **dict.fromkeys(("device", "cuda", "cpu"), "run.accelerator"),
    **dict.fromkeys(("gpus", "num_gpus", "ngpus"), "run.devices"),
    **dict.fromkeys(("amp", "fp16", "bf16"), "run.precision"),
    **dict.fromkeys(("out", "output", "output_dir", "save_dir", "name"), "run.dir"),
    **dict.fromkeys(("data", "data_dir", "data_path", "dataset"), "data.root"),
    **dict.fromkeys(("frames", "clip_len", "clip_length"), "data.num_frames"),
    **dict.fromkeys(("j", "workers"), "data.num_workers"),
    **dict.fromkeys(("model", "arch", "backbone", "net"), "model.name"),
    **dict.fromkeys(("pretrained", "checkpoint"), "model.weights"),
}


def unknown_key(name: str, known: Iterable[str]) -> str:
    """The line that names the key that is meant: by what others call it, by its last word, or the nearest one."""
    known, last = sorted(known), name.rpartition(".")[2].replace("-", "_")
    words: dict[str, list[str]] = {}
    for key in known:
        words.setdefault(key.rpartition(".")[2], []).append(key)
    near = get_close_matches(last, words, n=1, cutoff=0.6)
    meant = [f"train.{last}", _ELSEWHERE.get(last), *(words[near[0]] if near else ())]
    if found := next((key for key in meant if key in known), None):
        return f"unknown key {name!r}: did you mean {found!r}?"
    section = ", ".join(key for key in known if key.startswith(f"{name.partition('.')[0]}."))
    return f"unknown key {name!r}: {f'known are {section}' if section else 'no key has a name like it'}"


def _message(section: type[Section], values: Mapping[str, Any], found: Any) -> str:
    """What pydantic found wrong with the values of a section, in one line."""
    if isinstance(own := found.get("ctx", {}).get("error"), InputError):  # of a check, or of a section in this one
        return str(own)
    name = str(found["loc"][0])
    key = f"{section.__name__.removesuffix('Config').lower()}.{name}".lstrip(".")
    if found["type"] == "extra_forbidden":
        return unknown_key(key, section.key_names())
    return f"{key} must be {in_words(section, name)}, got {'nothing' if values.get(name) == '' else values.get(name)}"


def _kind(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return f"one of {', '.join(map(str, schema['enum']))}"
    if "prefixItems" in schema:
        kinds = [_kind(one) for one in schema["prefixItems"]]
        if len(set(kinds)) == 1:
            _, noun, *bounds = kinds[0].split(" ", 2)
            return " ".join([f"a list of {len(kinds)} {noun}s", *bounds])
        return f"a list of {len(kinds)} numbers ({', '.join(kinds)})"
    if schema.get("type") == "array":
        return f"a list of {'text' if schema['items']['type'] == 'string' else 'numbers'}"
    names = {"string": "text", "boolean": "true or false", "null": "null"}
    numbers = {"integer": "an integer", "number": "a number"}
    kind = schema.get("type", "object")
    if kind not in numbers:
        return names.get(kind, "keys with values")
    if "minimum" in schema and "maximum" in schema:
        return f"{numbers[kind]} from {schema['minimum']:.10g} to {schema['maximum']:.10g}"
    signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {schema[bound]:.10g}" for bound, sign in signs.items() if bound in schema]
    return f"{numbers[kind]} {' and '.join(bounds)}".rstrip()
