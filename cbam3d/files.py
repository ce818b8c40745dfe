"""Reading files from others without executing anything, and writing files whole or not at all."""

import os
import pickle
import re
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any
from uuid import uuid4

import yaml
from safetensors import SafetensorError

from cbam3d.errors import InputError, reason_of

UNFINISHED = ".part"  # in the names of files that are being written
_PATIENCE = 15.0  # seconds
_LARGEST_YAML = 1 << 17  # bytes
_DEEPEST_YAML = 50  # values in each other


class _Loader(yaml.SafeLoader):
    """YAML 1.2 in what numbers are: 1e-3 is one, 010 is ten, and 1:30 is text. A key stands once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := next((name for place, name in enumerate(names) if name in names[:place]), None):
            raise yaml.YAMLError(f"{twice!r} stands twice")
        return super().construct_mapping(node, deep)

    def construct_int(self, node: yaml.ScalarNode) -> int | str:
        if _TEXT & set(node.value):
            return str(node.value)
        return int(node.value) if _LEADING_ZERO.fullmatch(node.value) else super().construct_yaml_int(node)

    def construct_float(self, node: yaml.ScalarNode) -> float | str:
        return str(node.value) if _TEXT & set(node.value) else super().construct_yaml_float(node)


_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$")
_LEADING_ZERO = re.compile(r"[-+]?0\d+")
_TEXT = {":", "_"}  # in YAML 1.1's numbers: 1:30 would be 90
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_float)
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _NUMBER, list("-+.0123456789"))


class _Dumper(yaml.SafeDumper):
    """Quotes the text that `_Loader` takes for numbers."""


_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _NUMBER, list("-+.0123456789"))


def to_yaml(values: dict[str, Any]) -> str:
    """Plain data as YAML, in its order: what `parse_yaml` reads."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False)


def parse_yaml(text: str) -> Any:
    """A value of YAML.

    Raises:
        ValueError: malformed YAML, aliases, or values too deep in each other.
    """
    try:
        _check_events(text)
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # what YAML's tags refuse, they refuse with exceptions of many kinds
        raise ValueError(" ".join(str(error).split())) from None


def load_mapping(path: Path, kind: str) -> dict[str, Any]:
    """Read a YAML file of keys with values.

    Args:
        path: the file.
        kind: what the file should be, for the error.

    Raises:
        InputError: a missing or malformed file.
    """
    try:
        if path.stat().st_size > _LARGEST_YAML:
            raise InputError(f"{path}: a {kind} has at most {_LARGEST_YAML:,} bytes")
        content = parse_yaml(path.read_text("utf-8"))
    except InputError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable {kind} ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: a {kind} holds keys with values, not a {type(content).__name__}")
    return content


def _check_events(text: str) -> None:
    """Raise YAMLError for what takes more memory or time than its text does: aliases, and values deep in each other."""
    depth = 0
    for event in yaml.parse(text):
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError(f"line {event.start_mark.line + 1}: aliases (*{event.anchor}) are not supported")
        depth += isinstance(event, (yaml.SequenceStartEvent, yaml.MappingStartEvent))
        depth -= isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent))
        if depth > _DEEPEST_YAML:
            raise yaml.YAMLError(f"line {event.start_mark.line + 1}: more than {_DEEPEST_YAML} levels")


def _check_archive(path: Path, kind: str) -> None:
    """Raise InputError for an archive that grows as it is read: `torch.save` compresses nothing."""
    try:
        with zipfile.ZipFile(path) as archive:
            grown = any(entry.file_size > entry.compress_size for entry in archive.infolist())
    except (zipfile.BadZipFile, NotImplementedError):
        return  # an older format, or damaged: reading reports it
    if grown:
        raise InputError(f"{path}: not a readable {kind} (a compressed archive)")


def load_tensors(path: Path, kind: str) -> Any:
    """Read a .safetensors file, or a file of `torch.save` that holds tensors and plain data, onto the CPU.

    Args:
        path: the file.
        kind: what the file should be, for the error: "checkpoint", "weights file".

    Raises:
        InputError: a missing, truncated or foreign file, or one that holds more than tensors and plain data.
    """
    import torch
    from safetensors.torch import load_file

    if not path.is_file():
        raise InputError(f"{path}: no such {kind}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        _check_archive(path, kind)
        return torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except pickle.UnpicklingError:
        raise InputError(f"{path}: not a readable {kind} (damaged, or more than tensors and plain data)") from None
    except Exception as error:  # a foreign file breaks the unpickler in any way it likes
        raise InputError(f"{path}: not a readable {kind} ({reason_of(error)})") from None


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to. What is there takes the name when the block ends, and is removed when it
    fails: readers find the whole file, the previous one, or none."""
    # others may write the same; a name that is as long as names can be leaves no room for more
    unfinished = path.with_name(f".{uuid4().hex[:12]}{UNFINISHED}{path.suffix}")
    try:
        yield unfinished
        if unfinished.exists():
            unfinished.replace(path)
    except OSError as error:
        if error.errno and error.filename in (None, str(unfinished)):  # None where a disk is full
            error.filename = str(path)
        raise
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise InputError where a file that is written within the block cannot be."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be written ({getattr(error, 'strerror', None) or error})") from None


def make_folder(path: str | Path) -> Path:
    """Create a folder and its parents where they are missing.

    Raises:
        InputError: it cannot be created, or a file has its name.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be used as a folder ({error.strerror})") from None
    return Path(path)


@contextmanager
def used_by_one(folder: Path) -> Iterator[None]:
    """Hold a folder within the block, where the system and the file system have locks.

    Raises:
        InputError: another process holds it, and goes on to: one that was killed has workers that end soon.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    place = os.open(folder, os.O_RDONLY)
    until = time.monotonic() + _PATIENCE
    try:
        while True:
            try:
                fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise InputError(f"{folder}: another process is training there") from None
                time.sleep(0.2)
            except OSError:  # a file system without locks
                break
        yield
    finally:
        os.close(place)


def is_hidden(path: PurePath) -> bool:
    """Whether a file, or a folder that it is in, has a name that begins with a dot."""
    return any(part.startswith(".") for part in path.parts)


def printable(text: str) -> str:
    """A text that can be encoded: names of files may hold bytes that are no UTF-8."""
    return text.encode("utf-8", "replace").decode()


def leads_out(path: str | Path, real_root: str) -> bool:
    """Whether a path leads out of a folder, given by its `os.path.realpath`, through links or ".."."""
    return os.path.commonpath([os.path.realpath(path), real_root]) != real_root
