"""Which command is meant, and how errors are shown."""

import errno
import io
import os
import select
import signal
import sys
from importlib import import_module

from rich.console import Console

from cbam3d import __version__
from cbam3d.cli.console import install_messages
from cbam3d.errors import InputError, Stopped, unknown

USAGE = """usage: cbam3d COMMAND ...

Action recognition in video with 3D attention.

  train       train and score; without arguments, the demo
  evaluate    score runs again, with intervals; compare several
  compare     train with each mechanism: which differences are beyond noise
  explain     where a network looks: attention maps and Grad-CAM as pictures
  report      one HTML page about a run
  predict     the most probable classes of files, parts of files, streams
  features    features of every file by a network, as a table
  prepare     read every video of a data set once, and write a table of them
  push        a run to the Hugging Face Hub, with a card that tells what it can do
  serve       a page in the browser: drop a video, see what a run sees in it
  export      a network for elsewhere, checked, with what is needed to use it
  list        networks, attention mechanisms, configurations, data sets
  completion  a script that completes commands and options in your shell

`cbam3d COMMAND --help` shows the options of a command, `cbam3d --version` the version."""

_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # full, or for reading only: nobody's mistake in the code

# each a module of this room with `parser` and `run`
COMMANDS = ["train", "evaluate", "compare", "explain", "report", "predict"]
COMMANDS += ["features", "prepare", "push", "serve", "export", "list", "completion"]


def main(arguments: list[str] | None = None) -> int:
    """Run a command; return the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    for stream in (sys.stdout, sys.stderr):  # names of files may hold bytes that are not text
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    if arguments[0] == "--version":
        print(f"cbam3d {__version__}")
        return 0
    for_programs = any(word.partition("=")[0] in ("--json", "--events") for word in arguments)
    end_messages = install_messages(stderr=for_programs)
    try:
        if arguments[0] not in COMMANDS:
            raise InputError(unknown("command", arguments[0], COMMANDS))
        import_module(f"cbam3d.cli.{arguments[0]}").run(arguments[1:])
    except InputError as error:
        _show(str(error), "red")
        return 2
    except Stopped as stopped:
        if str(stopped):  # of several processes, one reports
            _show(str(stopped), "yellow")
        return stopped.status
    except RuntimeError as error:
        if not (text := _from_another_process(error)):
            raise
        _show(text, "red")
        return 2
    except BrokenPipeError:
        if not _has_no_reader():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except PermissionError as error:
        if error.filename is None:
            raise
        _show(f"{error.filename}: {(error.strerror or 'no permission').lower()}", "red")
        return 2
    except OSError as error:
        if error.errno not in _OF_THE_DISK:
            raise
        _show(f"{error.filename or 'a file'} cannot be written: {error.strerror}", "red")
        return 2
    except KeyboardInterrupt:
        return 130
    finally:
        end_messages()
    return 0


def _has_no_reader() -> bool:
    """Whether who read the output has ended, as head does."""
    output = select.poll()
    output.register(sys.stdout.fileno(), select.POLLOUT)
    return any(event & select.POLLERR for _, event in output.poll(0))


def _show(text: str, style: str) -> None:
    Console(stderr=True, soft_wrap=True).print(f"cbam3d: {text}", style=style, markup=False, highlight=False)


def _from_another_process(error: RuntimeError) -> str:
    """How another process's death is reported, which is raised wherever this one happens to be; else empty."""
    reason = str(error).partition("\n")[0]
    if "DataLoader worker" in reason:
        advice = "memory may have run out (lower data.num_workers), or a file crashes the decoder (prepare names it)"
        return f"{reason} {advice}"
    if type(error).__name__ == "DistBackendError" or "gloo/" in str(error) or "Connection closed by peer" in str(error):
        return "another process of this run has ended, see its own message; --resume continues the run"
    return ""
