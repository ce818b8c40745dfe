"""An S3 server of this process, by moto, which can be told to fail."""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock, Thread
from typing import Any
from unittest import mock

import boto3
import fsspec
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

from cbam3d.storage import reading


class _Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_request(self, *args: Any) -> None: ...

    def log(self, *args: Any) -> None: ...


class S3:
    """A server with one bucket.

    `fail` is asked for each request, given its number and the WSGI environment: None, "503", "403", "reset", "cut", or
    seconds to wait.
    """

    bucket = "films"

    def __init__(self, url: str) -> None:
        self.url = url
        self.fail: Callable[[int, dict[str, Any]], str | float | None] = lambda number, environ: None
        self.counts: Counter[str] = Counter()
        self.num_bytes = 0
        self.lock = Lock()
        self.client = boto3.client("s3", endpoint_url=url)
        self.client.create_bucket(Bucket=self.bucket)
        self.forget()

    def restart(self) -> None:
        """Work, with an empty bucket."""
        self.fail = lambda number, environ: None
        reading._states.clear()
        for name in self.names():
            self.client.delete_object(Bucket=self.bucket, Key=name)
        self.forget()

    def forget(self) -> None:
        """Count from 0."""
        self.counts.clear()
        self.num_bytes = 0

    def put(self, folder: Path, prefix: str) -> str:
        """Copy a folder into the bucket; returns its URL."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                key = f"{prefix}/{path.relative_to(folder).as_posix()}"
                self.client.put_object(Bucket=self.bucket, Key=key, Body=path.read_bytes())
        self.forget()
        return f"s3://{self.bucket}/{prefix}"

    def get(self, key: str) -> bytes:
        return self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()

    def names(self, prefix: str = "") -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        return sorted(item["Key"] for page in pages for item in page.get("Contents", []))


class _Faults:
    def __init__(self, app: Any) -> None:
        self.app, self.server = app, None

    def __call__(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        server = self.server
        if server is None:
            return self.app(environ, start)
        with server.lock:
            number = sum(server.counts.values())
            server.counts[environ["REQUEST_METHOD"]] += 1
        fault = server.fail(number, environ)
        if fault in ("503", "403"):
            start(f"{fault} as told", [("Content-Length", "0")])
            return []
        if fault == "reset":
            environ["werkzeug.socket"].close()
            raise ConnectionResetError
        if isinstance(fault, (int, float)):
            time.sleep(fault)
        body = list(self.app(environ, start))
        with server.lock:
            server.num_bytes += sum(map(len, body))
        if fault == "cut" and sum(map(len, body)) > 1:
            whole = b"".join(body)

            def half() -> Iterator[bytes]:
                yield whole[: len(whole) // 2]
                environ["werkzeug.socket"].close()

            return half()
        return body


@contextmanager
def serve() -> Iterator[S3]:
    """Start the server, and name it in the environment."""
    faults = _Faults(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, faults, threaded=True, request_handler=_Quiet)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    facts = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}
    facts |= {"AWS_ENDPOINT_URL": (url := f"http://127.0.0.1:{server.port}"), "AWS_CONFIG_FILE": os.devnull}
    facts |= {"AWS_SHARED_CREDENTIALS_FILE": os.devnull, "AWS_EC2_METADATA_DISABLED": "true"}
    try:
        with mock.patch.dict(os.environ, facts):
            fsspec.get_filesystem_class("s3").clear_instance_cache()
            faults.server = S3(url)
            yield faults.server
    finally:
        server.shutdown()
        server.server_close()
