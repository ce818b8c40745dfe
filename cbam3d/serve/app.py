"""The server of the page: Starlette, since it serves files by names of our own choosing, so that no path of the machine
leaves it, and needs nothing else that has to be installed (Gradio puts paths into the addresses of files, and plays
only what the browser plays)."""

import asyncio
import contextlib
import ipaddress
import json
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
from cbam3d.data.manifest import TABLE_NAME, read_manifest
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
_LEAST_RATE = 1 << 14  # bytes a second of an upload, on average
_HEADERS = {
    "content-security-policy": "default-src 'self'; media-src 'self'; img-src data:; frame-ancestors 'none'",
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
    site = _Site(runs, limits, device)
    routes = [
        *(Route(f"/{name}", site.static) for name in _KINDS),
        Route("/api/about", site.about),
        Route("/api/videos", site.upload, methods=["POST"]),
        Route("/api/examples/{number:int}", site.example, methods=["POST"]),
        Route("/api/videos/{id}", site.state),
        Route("/api/videos/{id}", site.delete, methods=["DELETE"]),
        Route("/api/videos/{id}/video", site.video),
        Route("/api/videos/{id}/look/{number:int}", site.look),
    ]
    middleware = [Middleware(_WithHeaders)]
    if _is_loopback(host):
        middleware.append(Middleware(TrustedHostMiddleware, allowed_hosts=["localhost", "127.0.0.1", "[::1]", host]))
    handlers = {HTTPException: _say}
    return Starlette(routes=routes, middleware=middleware, lifespan=site.lifespan, exception_handlers=handlers)


class _Site:
    """What answers requests: a method a route."""

    def __init__(self, runs: list[Run], limits: Limits, device: str) -> None:
        self.lookers, self.examples = [Looker(run, device) for run in runs], examples_of(runs[0])
        self.limits, self.jobs = limits, Jobs(limits, self.work)

    def work(self, job: Job, report: Report) -> dict[str, Any]:
        source = job.folder / "upload"
        report(0.0, "checking the video")
        info = check(source, self.limits)
        report(0.02, "preparing the video")
        shown = playable(source, job.folder / "shown.mp4", lambda: report(0.02, "preparing the video"))
        found = []
        for number, looker in enumerate(self.lookers):
            folder = job.folder / f"run{number}"
            folder.mkdir()
            begin, share = number / len(self.lookers), 1 / len(self.lookers)
            found.append(
                looker.look(source, info, folder, lambda part, text, b=begin, s=share: report(b + s * part, text))
            )
        facts = {"seconds": info.duration_seconds, "fps": info.fps, "size": [info.width, info.height]}
        return {**facts, "problem": info.problem, "video": shown.name, "runs": found}

    def job_of(self, request: Request) -> Job:
        job = self.jobs.get(request.path_params["id"])
        if job is None:
            raise HTTPException(404, "This video has been deleted.")
        return job

    async def static(self, request: Request) -> Response:
        name, kind = _KINDS[request.url.path.strip("/")]
        return Response((_STATIC / name).read_bytes(), media_type=kind)

    async def about(self, _: Request) -> Response:
        names = [looker.name for looker in self.lookers]
        accepted = {"mib": self.limits.mib, "seconds": self.limits.seconds, "keep_minutes": self.limits.keep_minutes}
        return _Json({"runs": names, "limits": accepted, "examples": [label for label, _ in self.examples]})

    async def upload(self, request: Request) -> Response:
        _refuse_others(request)
        most = int(self.limits.mib * 2**20)
        too_large = HTTPException(413, f"The file is larger than {self.limits.mib:g} MiB.")
        if int(request.headers.get("content-length", 0)) > most:
            raise too_large
        job = _create(self.jobs, request.query_params.get("name", "video"))
        done, begin = 0, time.monotonic()
        try:
            with open(job.folder / "upload", "wb") as file:
                chunks = aiter(request.stream())
                while (chunk := await asyncio.wait_for(anext(chunks, None), _CHUNK_SECONDS)) is not None:
                    done += len(chunk)
                    if done > most:
                        raise too_large
                    job.touched = time.monotonic()
                    if done < _LEAST_RATE * (job.touched - begin - _CHUNK_SECONDS):
                        raise TimeoutError
                    await asyncio.to_thread(file.write, chunk)
            if not done:
                raise HTTPException(400, "The file is empty.")
        except TimeoutError:
            self.jobs.forget(job)
            raise HTTPException(408, "The upload is too slow, or has come to a halt.") from None
        except BaseException:
            self.jobs.forget(job)
            raise
        self.jobs.start(job)
        return _Json({"id": job.id}, 202)

    async def example(self, request: Request) -> Response:
        _refuse_others(request)
        number = request.path_params["number"]
        if number >= len(self.examples):
            raise HTTPException(404, "There is no such example.")
        label, path = self.examples[number]
        job = _create(self.jobs, label)
        try:
            await asyncio.to_thread(shutil.copyfile, path, job.folder / "upload")
        except OSError:
            self.jobs.forget(job)
            raise HTTPException(404, "The example is not there any more.") from None
        self.jobs.start(job)
        return _Json({"id": job.id}, 202)

    async def state(self, request: Request) -> Response:
        job = self.job_of(request)
        facts = {"name": job.name, "state": job.state, "share": job.share, "doing": job.doing, "error": job.error}
        return _Json({**facts, "result": job.result})

    async def delete(self, request: Request) -> Response:
        _refuse_others(request)
        self.jobs.forget(self.job_of(request))
        return Response(status_code=204)

    async def video(self, request: Request) -> Response:
        job = self.job_of(request)
        return _file(job.folder / job.result.get("video", "none"))

    async def look(self, request: Request) -> Response:
        return _file(self.job_of(request).folder / f"run{request.path_params['number']}" / "look.mp4")

    @contextlib.asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        async def sweep() -> None:
            while True:
                await asyncio.sleep(_SWEEP_SECONDS)
                await asyncio.to_thread(self.jobs.forget_old)

        task = asyncio.create_task(sweep())
        try:
            yield
        finally:
            task.cancel()
            self.jobs.close()


def examples_of(run: Run) -> list[tuple[str, Path]]:
    """Videos of the run's test set that are still there: label and path, of one class after the other."""
    table, root = run.folder / TABLE_NAME, place_of(run.config.data.root)
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
    return _Json({"error": error.detail}, error.status_code)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


class _Json(JSONResponse):
    """In ASCII: names of classes may hold bytes that are no UTF-8."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False).encode()


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
