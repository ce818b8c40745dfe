"""A stand-in of the Hugging Face Hub on this machine: what of its HTTP interface an upload and a download need."""

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

_COMMIT = "0" * 39 + "1"


class Hub(BaseHTTPRequestHandler):
    """Keeps repositories in `server.files`: name -> path -> content."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.headers.get("authorization") != "Bearer right":
            return self.answer({"error": "Invalid username or password."}, 401)
        if path == "/api/repos/create":
            name = "/".join(filter(None, (json.loads(body).get("organization"), json.loads(body)["name"])))
            self.server.files.setdefault(name, {})
            return self.answer({"url": f"{self.server.address}/{name}", "name": name, "id": name})
        if path == "/api/validate-yaml":
            self.server.cards.append(json.loads(body)["content"])
            return self.answer({"errors": [], "warnings": []})
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", path):
            files = json.loads(body)["files"]
            return self.answer(
                {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]}
            )
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
            for line in body.decode().splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    content = base64.b64decode(entry["value"]["content"])
                    self.server.files[match[1]][entry["value"]["path"]] = content
            url = f"{self.server.address}/{match[1]}/commit/{_COMMIT}"
            return self.answer({"success": True, "commitOid": _COMMIT, "commitUrl": url})
        return self.answer({"error": path}, 404)

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        if path == "/api/whoami-v2":
            return self.answer({"name": "someone", "type": "user"})
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/[^/]+)?", path):
            files = self.server.files.get(match[1])
            if files is None:
                return self.answer({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
            if match[2] == "tree":
                return self.answer(
                    [{"type": "file", "path": p, "size": len(c), "oid": _sha(c)} for p, c in files.items()]
                )
            about = {"id": match[1], "modelId": match[1], "sha": _COMMIT, "private": False, "tags": [], "downloads": 0}
            return self.answer({**about, "likes": 0, "siblings": [{"rfilename": p} for p in files]})
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            content = self.server.files.get(match[1], {}).get(match[2])
            if content is None:
                return self.answer({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
            headers = {"ETag": f'"{_sha(content)}"', "X-Repo-Commit": _COMMIT, "X-Linked-Size": str(len(content))}
            return self.answer(content, 200, headers)
        return self.answer({"error": path}, 404)

    do_HEAD = do_GET

    def answer(self, content, status=200, headers=()):
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(raw)),
            **dict(headers),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(raw)

    def log_message(self, *_):
        pass


def _sha(content):
    return hashlib.sha1(content).hexdigest()


@contextmanager
def serve():
    """A running server; `files` has its repositories."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.files, server.cards = {}, []
    server.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
