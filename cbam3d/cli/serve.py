"""`cbam3d serve`."""

import socket

from cbam3d.cli.console import console
from cbam3d.cli.parser import CommandParser
from cbam3d.errors import InputError


def parser() -> CommandParser:
    """The options of the command."""
    about = (
        "Serve a page that shows what a run sees in a video: classes, where it looks, and what happens when; of two "
        "runs, side by side."
    )
    command = CommandParser("serve", about)
    command.add_argument("runs", nargs="+", help="one or two folders of runs, or checkpoints")
    command.add_how()
    command.add_argument("--host", default="127.0.0.1", help="address to listen at; the default is this machine alone")
    command.add_argument("--port", type=int, default=7860, help="0 for a free one")
    command.add_argument("--max-mib", type=float, default=200.0, help="size of a file")
    command.add_argument("--max-seconds", type=float, default=600.0, help="length of a video")
    command.add_argument("--jobs", type=int, default=1, help="videos at a time; others wait")
    command.add_argument("--keep-minutes", type=float, default=15.0, help="after which videos are deleted")
    command.add_device()
    return command


def run(arguments: list[str]) -> None:
    """Run the command."""
    given, _ = parser().parse(arguments)
    from cbam3d.runs.run import open_run

    for name in ("max_mib", "max_seconds", "jobs", "keep_minutes"):
        if not 0 < getattr(given, name) < float("inf"):
            raise InputError(f"serve: --{name.replace('_', '-')} must be above 0, got {getattr(given, name)}")
    if len(given.runs) > 2:
        raise InputError(f"serve: at most two runs side by side, got {len(given.runs)}")
    try:
        import uvicorn

        from cbam3d.serve.app import create_app
    except ImportError as error:
        raise InputError(f'serve needs {error.name}: pip install "cbam3d[serve]"') from None
    from cbam3d.serve.look import Limits

    family = socket.AF_INET6 if ":" in given.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((given.host, given.port))
        except (OSError, OverflowError) as error:
            raise InputError(f"serve: cannot listen at {given.host}:{given.port} ({error})") from None
        limits = Limits(given.max_mib, given.max_seconds, given.jobs, keep_minutes=given.keep_minutes)
        runs = [open_run(path, trust_code=given.trust_code) for path in given.runs]
        app = create_app(runs, limits, given.device, given.host)
        listener.listen(128)
        host = f"[{given.host}]" if ":" in given.host else given.host
        console().print(f"http://{host}:{listener.getsockname()[1]} (Ctrl-C ends it)")
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", server_header=False, access_log=False))
        server.run(sockets=[listener])
