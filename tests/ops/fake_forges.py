"""GitHub's and GitLab's APIs on loopback: strict about paths, headers and bodies."""

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

TOKEN = "token-that-must-not-be-logged"


class _Api(BaseHTTPRequestHandler):
    """Answers the calls of one forge, and refuses any other path, header or body."""

    def do_GET(self):
        self._answer(None)

    def do_POST(self):
        self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def do_PUT(self):
        self.do_POST()

    def do_PATCH(self):
        self.do_POST()

    def _answer(self, body):
        url = urlsplit(self.path)
        call = (self.command, url.path, dict(parse_qsl(url.query)), body)
        self.server.calls.append(call)
        if self.server.first:
            status, headers, answer = self.server.first.pop(0)
        else:
            status, headers, answer = self.server.answer(self, *call)
        content = json.dumps(answer).encode()
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        pass


def github(handler, method, path, query, body):
    headers = handler.headers
    if headers["Authorization"] != f"Bearer {TOKEN}":
        return 401, {}, {"message": "Bad credentials", "status": "401"}
    if (headers["Accept"], headers["X-GitHub-Api-Version"]) != (
        "application/vnd.github+json", "2022-11-28",
    ):  # fmt: skip
        return 415, {}, {"message": "Unsupported 'Accept' header"}
    there = handler.server.there
    pulls = "/repos/acme/models/pulls"
    if (method, path) == ("POST", pulls):
        if set(body) != {"title", "body", "head", "base"} or headers["Content-Type"] != (
            "application/json"
        ):
            return 400, {}, {"message": "Problems parsing JSON"}
        if there:
            message = f"A pull request already exists for acme:{body['head']}."
            return 422, {}, {
                "message": "Validation Failed", "errors": [{"message": message, "code": "custom"}],
            }  # fmt: skip
        there.append(body)
        return 201, {}, {"number": 7, "html_url": "https://github.example/acme/models/pull/7"}
    if (method, path) == ("GET", pulls):
        wanted = {"head": f"acme:{there[0]['head']}", "base": "main", "state": "open"}
        found = [{"number": 7}] if query == wanted and handler.server.open else []
        return 200, {}, found
    if (method, path) == ("PATCH", f"{pulls}/7") and set(body) == {"title", "body"}:
        there[0] |= body
        return 200, {}, {"number": 7, "html_url": "https://github.example/acme/models/pull/7"}
    return 404, {}, {"message": "Not Found"}


def gitlab(handler, method, path, query, body):
    if handler.headers["PRIVATE-TOKEN"] != TOKEN:
        return 401, {}, {"message": "401 Unauthorized"}
    there = handler.server.there
    requests = "/api/v4/projects/acme%2Fml%2Fmodels/merge_requests"
    if (method, path) == ("POST", requests):
        if set(body) != {
            "source_branch", "target_branch", "title", "description", "remove_source_branch",
        }:  # fmt: skip
            return 400, {}, {"message": "bad request"}
        if there:
            return 409, {}, {"message": ["Another open merge request already exists: !3"]}
        there.append(body)
        return 201, {}, {"iid": 3, "web_url": "https://gitlab.example/acme/ml/models/-/3"}
    if (method, path) == ("GET", requests):
        wanted = {
            "source_branch": there[0]["source_branch"], "target_branch": "main", "state": "opened",
        }  # fmt: skip
        return 200, {}, [{"iid": 3}] if query == wanted and handler.server.open else []
    if (method, path) == ("PUT", f"{requests}/3") and set(body) == {"title", "description"}:
        there[0] |= body
        return 200, {}, {"iid": 3, "web_url": "https://gitlab.example/acme/ml/models/-/3"}
    return 404, {}, {"message": "404 Not Found"}


@contextlib.contextmanager
def fake_forge(kind):
    """A forge with one repository: `acme/models`, or `acme/ml/models` on GitLab."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Api)
    server.calls, server.first, server.there, server.open = [], [], [], True
    server.answer = {"github": github, "gitlab": gitlab}[kind]
    server.url = f"http://127.0.0.1:{server.server_port}" + ("" if kind == "github" else "/api/v4")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
