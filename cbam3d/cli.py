"""The command line: which command is meant, and how errors are said."""

import sys
from importlib import import_module

from rich.console import Console

from cbam3d.errors import InputError, Stopped, unknown

USAGE = """usage: cbam3d COMMAND …

  train [--config FILE] [--section.key value …] [--resume] [--dry-run]
                                                             train and score; without arguments: the demo
  evaluate RUN … [--views 10x3] [--section.key value …]      score runs again, with intervals; compare several
  prepare RECIPE --root DIR [--short-side N --gop K]         read every video once, write DIR/manifest.csv
  predict RUN PATH … [--window SECONDS] [--json]             the most probable classes of files, or of their parts
  explain RUN PATH … [--out DIR] [--class NAME]              where it looks: attention maps and Grad-CAM as pictures
  report RUN [--out FILE]                                    one HTML page about a run
  export RUN [--format torch|onnx] [--out FILE]              the network for elsewhere, checked, with its facts
  compare CONFIG --attention none,se,cbam [--seeds 3]        train with each mechanism; what differs beyond noise
  list [attention]                                           networks, attention, configurations, recipes

`cbam3d train --help` documents every key."""


_COMMANDS = {name: f"{name}.{name}" for name in ("train", "evaluate", "compare", "explain", "report", "predict")}
_COMMANDS |= {"prepare": "prepare.prepare", "export": "export.export", "list": "names.list_names"}


def main(arguments: list[str] | None = None) -> int:
    """Run a command; return the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    try:
        if arguments[0] not in _COMMANDS:
            raise InputError(unknown("command", arguments[0], _COMMANDS))
        module, _, function = _COMMANDS[arguments[0]].partition(".")
        command = getattr(import_module(f"cbam3d.commands.{module}"), function)  # torch is not needed for the usage
        command(arguments[1:])
    except InputError as error:
        _say(str(error), "red")
        return 2
    except Stopped as stopped:
        if str(stopped):  # of several processes, one speaks
            _say(str(stopped), "yellow")
        return stopped.status
    except RuntimeError as error:
        if not (text := _from_another_process(error)):
            raise
        _say(text, "red")
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _say(text: str, style: str) -> None:
    Console(stderr=True, soft_wrap=True).print(f"cbam3d: {text}", style=style, markup=False, highlight=False)


def _from_another_process(error: RuntimeError) -> str:
    """What to say of another process's death, which is told wherever this one happens to be; else empty."""
    reason = str(error).partition("\n")[0]
    if "DataLoader worker" in reason:
        advice = "memory may have run out (lower data.num_workers), or a file crashes the decoder (prepare names it)"
        return f"{reason} {advice}"
    if type(error).__name__ == "DistBackendError" or "gloo/" in str(error) or "Connection closed by peer" in str(error):
        return "another process of this run has ended, and its own message says why; --resume goes on"
    return ""
