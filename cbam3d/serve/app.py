"""The server of the page: Starlette, since it serves files by names of our own choosing, so that no path of the machine
leaves it, and needs nothing else that has to be installed (Gradio puts paths into the addresses of files, and plays
only what the browser plays)."""

import asyncio
import contextlib
import ipaddress
import os
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cbam3d.data.background import BACKGROUND
from cbam3d.data.manifest import read_manifest
from cbam3d.errors import InputError
from cbam3d.runs.run import Run
from cbam3d.serve.jobs import Job, Jobs
from cbam3d.serve.look import Limits, Looker, Report, check
from cbam3d.storage import place_of
from cbam3d.video.playable import playable

_STATIC = Path(__file__).with_name("page")
_KINDS = {
    "": ("page.html", "text/html"),
    "page.js": ("page.js", "text/javascript"),
    "page.css": ("page.css", "text/css"),
}
_OURS = "x-cbam3d"  # a header that pages of other sites cannot send
_EXAMPLES = 6
_SWEEP_SECONDS = 20.0
_CHUNK_SECONDS = 30.0  # until the next part of an upload
_HEADERS = {
    "content-security-policy": "default-src 'self'; media-src 'self' blob:; img-src data:; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


def create_app(runs: list[Run], limits: Limits, device: str = "cpu", host: str = "127.0.0.1") -> Starlette:
    """The page of one run, or of two side by side.

    Args:
        runs: trained on videos.
        limits: what is accepted.
        device: where the networks compute.
        host: address that it is bound to; at one of this machine alone, requests for other names are refused.

    Raises:
        InputError: a run of images, or no such device.
    """
    lookers, examples = [Looker(run, device) for run in runs], examples_of(runs[0])

    def work(job: Job, report: Report) -> dict[str, Any]:
        source = job.folder / "upload"
        report(0.0, "checking the video")
        info = check(source, limits)
        report(0.02, "preparing the video")
        shown = playable(source, job.folder / "shown.mp4")
        found = []
        for number, looker in enumerate(lookers):
            folder = job.folder / f"run{number}"
            folder.mkdir()
            begin, share = number / len(lookers), 1 / len(lookers)
            found.append(
                looker.look(source, info, folder, lambda part, text, b=begin, s=share: report(b + s * part, text))
            )
        facts = {"seconds": info.duration_seconds, "fps": info.fps, "size": [info.width, info.height]}
        return {**facts, "problem": info.problem, "video": shown.name, "runs": found}

    jobs = Jobs(limits, work)

    def job_of(request: Request) -> Job:
        job = jobs.get(request.path_params["id"])
        if job is None:
            raise HTTPException(404, "This video has been deleted.")
        return job

    async def static(request: Request) -> Response:
        name, kind = _KINDS[request.url.path.strip("/")]
        return Response((_STATIC / name).read_bytes(), media_type=kind)

    async def about(_: Request) -> Response:
        names = [looker.name for looker in lookers]
        accepted = {"mib": limits.mib, "seconds": limits.seconds, "keep_minutes": limits.keep_minutes}
        return JSONResponse({"runs": names, "limits": accepted, "examples": [label for label, _ in examples]})

    async def upload(request: Request) -> Response:
        _refuse_others(request)
        most = int(limits.mib * 2**20)
        too_large = HTTPException(413, f"The file is larger than {limits.mib:g} MiB.")
        if int(request.headers.get("content-length", 0)) > most:
            raise too_large
        job = _create(jobs, request.query_params.get("name", "video"))
        done = 0
        try:
            with open(job.folder / "upload", "wb") as file:
                chunks = aiter(request.stream())
                while (chunk := await asyncio.wait_for(anext(chunks, None), _CHUNK_SECONDS)) is not None:
                    done += len(chunk)
                    if done > most:
                        raise too_large
                    job.touched = time.monotonic()
                    await asyncio.to_thread(file.write, chunk)
            if not done:
                raise HTTPException(400, "The file is empty.")
        except TimeoutError:
            jobs.forget(job)
            raise HTTPException(408, "The upload has come to a halt.") from None
        except BaseException:
            jobs.forget(job)
            raise
        jobs.start(job)
        return JSONResponse({"id": job.id}, 202)

    async def example(request: Request) -> Response:
        _refuse_others(request)
        number = request.path_params["number"]
        if number >= len(examples):
            raise HTTPException(404, "There is no such example.")
        label, path = examples[number]
        job = _create(jobs, label)
        try:
            await asyncio.to_thread(shutil.copyfile, path, job.folder / "upload")
        except OSError:
            jobs.forget(job)
            raise HTTPException(404, "The example is not there any more.") from None
        jobs.start(job)
        return JSONResponse({"id": job.id}, 202)

    async def state(request: Request) -> Response:
        job = job_of(request)
        facts = {"name": job.name, "state": job.state, "share": job.share, "doing": job.doing, "error": job.error}
        return JSONResponse({**facts, "result": job.result})

    async def delete(request: Request) -> Response:
        _refuse_others(request)
        jobs.forget(job_of(request))
        return Response(status_code=204)

    async def video(request: Request) -> Response:
        job = job_of(request)
        return _file(job.folder / job.result.get("video", "none"))

    async def look(request: Request) -> Response:
        return _file(job_of(request).folder / f"run{request.path_params['number']}" / "look.mp4")

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async def sweep() -> None:
            while True:
                await asyncio.sleep(_SWEEP_SECONDS)
                await asyncio.to_thread(jobs.forget_old)

        task = asyncio.create_task(sweep())
        try:
            yield
        finally:
            task.cancel()
            jobs.close()

    routes = [
        *(Route(f"/{name}", static) for name in _KINDS),
        Route("/api/about", about),
        Route("/api/videos", upload, methods=["POST"]),
        Route("/api/examples/{number:int}", example, methods=["POST"]),
        Route("/api/videos/{id}", state),
        Route("/api/videos/{id}", delete, methods=["DELETE"]),
        Route("/api/videos/{id}/video", video),
        Route("/api/videos/{id}/look/{number:int}", look),
    ]
    middleware = [Middleware(_WithHeaders)]
    if _is_loopback(host):
        middleware.append(Middleware(TrustedHostMiddleware, allowed_hosts=["localhost", "127.0.0.1", "[::1]", host]))
    return Starlette(routes=routes, middleware=middleware, lifespan=lifespan, exception_handlers={HTTPException: _say})


def examples_of(run: Run) -> list[tuple[str, Path]]:
    """Videos of the run's test set that are still there: label and path, of one class after the other."""
    table, root = run.folder / "manifest.csv", place_of(run.config.data.root)
    if not table.is_file() or not isinstance(root, Path):
        return []
    manifest = read_manifest(table, run.config.data.allow_outside)
    held_out = manifest.select((manifest.split.equals("test") | manifest.split.equals("val")) & manifest.usable)
    found: dict[str, Path] = {}
    for row, label in enumerate(held_out.label):
        source = held_out.source(root, row)
        new = label and label != BACKGROUND and label not in found and source not in found.values()
        if new and isinstance(source, Path) and source.is_file():
            found[label] = source
        if len(found) == _EXAMPLES:
            break
    return list(found.items())


def _create(jobs: Jobs, name: str) -> Job:
    try:
        return jobs.create(os.path.basename(name.replace("\\", "/"))[:200] or "video")
    except InputError as error:
        raise HTTPException(429, str(error)) from None


def _refuse_others(request: Request) -> None:
    if _OURS not in request.headers:
        raise HTTPException(403, "Only the page itself may ask for this.")


def _file(path: Path) -> Response:
    if not path.is_file():
        raise HTTPException(404, "There is no such file.")
    with open(path, "rb") as file:
        matroska = file.read(4) == b"\x1a\x45\xdf\xa3"
    return FileResponse(path, media_type="video/webm" if matroska else "video/mp4")


async def _say(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


class _WithHeaders:
    """Adds what keeps a page from being misused to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                extra = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *extra]}
            await send(message)

        await self.app(scope, receive, with_headers if scope["type"] == "http" else send)
