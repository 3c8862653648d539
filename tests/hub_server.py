"""A Hugging Face Hub on localhost, backed by a folder: enough of its HTTP API to load and to push."""

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit


COMMIT = "0123456789abcdef0123456789abcdef01234567"


def _entry(path, name):
    """A file as the Hub lists it."""
    oid = hashlib.sha1(path.read_bytes()).hexdigest()
    return {"type": "file", "oid": oid, "size": path.stat().st_size, "path": name}


class HubHandler(BaseHTTPRequestHandler):
    """Repositories are `root/<user>/<name>`; every revision is the same files."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self._read(body=False)

    def do_GET(self):
        self._read(body=True)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = self._parts()
        if parts == ["api", "repos", "create"]:
            name = json.loads(body)["name"]
            organization = json.loads(body).get("organization") or "user"
            repo_id = f"{organization}/{name}"
            (self.server.root / repo_id).mkdir(parents=True, exist_ok=True)
            self._json({"url": f"{self.server.url}/{repo_id}", "name": repo_id, "id": repo_id})
        elif parts[:2] == ["api", "validate-yaml"]:
            self._json({"errors": [], "warnings": []})
        elif parts[4:5] == ["paths-info"]:
            repo, asked = self.server.root / parts[2] / parts[3], parse_qs(body.decode())
            names = asked["paths"] if asked else json.loads(body)["paths"]
            self._json([_entry(repo / name, name) for name in names if (repo / name).is_file()])
        elif parts[4:5] == ["preupload"]:
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            self._json({"files": files})
        elif parts[4:5] == ["commit"]:
            repo = self.server.root / parts[2] / parts[3]
            for line in body.splitlines():
                operation = json.loads(line)
                if operation["key"] == "file":
                    path = repo / operation["value"]["path"]
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(base64.b64decode(operation["value"]["content"]))
            commit_url = f"{self.server.url}/{parts[2]}/{parts[3]}/commit/{COMMIT}"
            self._json({"commitUrl": commit_url, "commitOid": COMMIT, "success": True})
        else:
            self._error("EntryNotFound")

    def _parts(self):
        return [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]

    def _read(self, body):
        parts = self._parts()
        if parts[:2] == ["api", "whoami-v2"]:
            return self._json({"name": "user", "type": "user", "orgs": []})
        is_api = parts[:2] in (["api", "models"], ["api", "datasets"])
        if parts[0] == "datasets":
            # Their files, and nothing else, are under this name.
            parts = parts[1:]
        repo_parts = parts[2:4] if is_api else parts[:2]
        repo = self.server.root.joinpath(*repo_parts)
        if len(repo_parts) < 2 or not repo.is_dir():
            return self._error("RepoNotFound")
        if is_api:
            files = sorted(path for path in repo.rglob("*") if path.is_file())
            names = [path.relative_to(repo).as_posix() for path in files]
            if parts[4:5] == ["tree"]:
                under = "/".join(parts[6:])
                entries = [_entry(path, name) for path, name in zip(files, names, strict=True)]
                return self._json([entry for entry in entries if entry["path"].startswith(under)])
            siblings = [{"rfilename": name} for name in names]
            repo_id = "/".join(repo_parts)
            return self._json({"id": repo_id, "sha": COMMIT, "private": False, "tags": [], "siblings": siblings})
        if len(parts) < 5 or parts[2] != "resolve":
            return self._error("EntryNotFound")
        return self._file(repo.joinpath(*parts[4:]), body)

    def _file(self, path, body):
        if not path.is_file():
            return self._error("EntryNotFound")
        data = path.read_bytes()
        total, status = len(data), 200
        headers = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if "Range" in self.headers:
            start, _, end = self.headers["Range"].removeprefix("bytes=").partition("-")
            first, last = int(start), int(end) if end else total - 1
            data, status = data[first : last + 1], 206
            headers["Content-Range"] = f"bytes {first}-{last}/{total}"
        return self._send(status, data, headers, body)

    def _json(self, value):
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"}, self.command != "HEAD")

    def _error(self, code):
        self._send(404, b"{}", {"X-Error-Code": code, "Content-Type": "application/json"}, self.command != "HEAD")

    def _send(self, status, data, headers, body):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)


@contextmanager
def run_hub(root):
    """Serves the folder `root`; gives the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), HubHandler)
    server.root = Path(root)
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.url
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def run_python(script, folder, endpoint=None, without_package=False):
    """Runs a script in a fresh process with a Hugging Face home of its own; gives its output."""
    environment = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    environment |= {"HF_HOME": str(folder / "hf"), "OMP_NUM_THREADS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    if endpoint is None:
        environment["HF_HUB_OFFLINE"] = "1"
    else:
        environment["HF_ENDPOINT"] = endpoint
    if without_package:
        # As if it were not installed, in a process that has everything else.
        script = f"import sys\nsys.modules['avgas_pipeline'] = None\n{script}"
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=folder, env=environment, timeout=300
    )
    assert result.returncode == 0, result.stderr
    return result.stdout
