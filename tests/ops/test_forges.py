"""GitHub's and GitLab's calls against strict fakes on loopback."""

import json
import logging
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from urllib.parse import parse_qsl, urlsplit

import pytest

from trimgate.errors import InvalidInput
from trimgate.ops import forges
from trimgate.ops.forges import Forge, ForgeError, find_forge, open_request

TOKEN = "token-that-must-not-be-logged"
ASKED = {
    "branch": "trimgate/production/fraud-1",
    "base": "main",
    "title": "Promote",
    "body": "card",
}


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


@pytest.fixture(params=["github", "gitlab"])
def forge(request, monkeypatch):
    """A forge on loopback, with a token for it in the environment."""
    monkeypatch.setenv("TRIMGATE_GIT_TOKEN", TOKEN)
    monkeypatch.delenv("TRIMGATE_FORGE_TOKEN", raising=False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Api)
    server.calls, server.first, server.there, server.open = [], [], [], True
    server.answer = {"github": github, "gitlab": gitlab}[request.param]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    if request.param == "github":
        made = Forge("github", url, "acme/models")
    else:
        made = Forge("gitlab", f"{url}/api/v4", "acme/ml/models")
    yield SimpleNamespace(server=server, forge=made, github=request.param == "github")
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_request_is_opened_once(forge):
    url = open_request(forge.forge, **ASKED)
    assert url.endswith("/pull/7" if forge.github else "/-/3")
    again = open_request(forge.forge, **{**ASKED, "title": "Promote again", "body": "new card"})
    assert again == url
    (there,) = forge.server.there
    assert there["title"] == "Promote again"
    assert there["body" if forge.github else "description"] == "new card"
    assert [call[0] for call in forge.server.calls] == [
        "POST", "POST", "GET", "PATCH" if forge.github else "PUT",
    ]  # fmt: skip


def test_it_is_refused_for_another_reason(forge):
    open_request(forge.forge, **ASKED)
    forge.server.open = False
    with pytest.raises(ForgeError, match=r"refuses the request for acme.*already exists"):
        open_request(forge.forge, **ASKED)


def test_an_expired_token(forge, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("TRIMGATE_GIT_TOKEN", "expired-" + TOKEN)
    with pytest.raises(ForgeError) as caught:
        open_request(forge.forge, **ASKED)
    assert "refuses the token in TRIMGATE_GIT_TOKEN: it is wrong or has expired" in str(
        caught.value
    )
    assert TOKEN not in str(caught.value) + caplog.text
    monkeypatch.setenv("TRIMGATE_FORGE_TOKEN", TOKEN)
    assert open_request(forge.forge, **ASKED)


def test_no_token(forge, monkeypatch):
    monkeypatch.delenv("TRIMGATE_GIT_TOKEN")
    with pytest.raises(InvalidInput, match="set TRIMGATE_FORGE_TOKEN, or TRIMGATE_GIT_TOKEN"):
        open_request(forge.forge, **ASKED)
    assert not forge.server.calls


def test_a_short_rate_limit_is_waited_for(forge, monkeypatch):
    waited = []
    monkeypatch.setattr(forges.time, "sleep", waited.append)
    forge.server.first = [
        (429, {"Retry-After": "7"}, {}),
        (403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1"}, {}),
    ]
    assert open_request(forge.forge, **ASKED)
    assert waited == [7.0, 0.0]


def test_a_long_rate_limit_is_not(forge, monkeypatch):
    monkeypatch.setattr(forges.time, "sleep", lambda _: pytest.fail("waits"))
    forge.server.first = [(429, {"Retry-After": "3600"}, {})]
    with pytest.raises(ForgeError, match="takes no more calls for 3600 s"):
        open_request(forge.forge, **ASKED)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (403, "does not let the token"),
        (404, "may not see it"),
        (500, "answered 500"),
        (301, "answered 301"),
    ],
)
def test_other_answers(forge, status, words):
    forge.server.first = [(status, {"Location": "http://127.0.0.1:9/"}, {"message": "x"})]
    with pytest.raises(ForgeError, match=words) as caught:
        open_request(forge.forge, **ASKED)
    assert "\n" not in str(caught.value)
    assert len(forge.server.calls) == 1


def test_the_forge_is_away(monkeypatch):
    monkeypatch.setenv("TRIMGATE_GIT_TOKEN", TOKEN)
    with pytest.raises(ForgeError, match=r"127.0.0.1 cannot be reached"):
        open_request(Forge("github", "http://127.0.0.1:9", "a/b"), **ASKED)


def test_a_body_that_is_too_long_is_cut(forge):
    longest = 65_536 if forge.github else 1_000_000
    open_request(forge.forge, **{**ASKED, "body": "x" * (longest + 1)})
    body = forge.server.there[0]["body" if forge.github else "description"]
    assert len(body) == longest
    assert body.endswith("(cut: the forge takes no more)\n")


@pytest.mark.parametrize(
    ("url", "given", "expected"),
    [
        ("https://github.com/a/b.git", {}, ("github", "https://api.github.com", "a/b")),
        ("git@github.com:a/b.git", {}, ("github", "https://api.github.com", "a/b")),
        ("ssh://git@gitlab.com/a/m/b.git", {}, ("gitlab", "https://gitlab.com/api/v4", "a/m/b")),
        ("https://github.acme.org/a/b", {}, ("github", "https://github.acme.org/api/v3", "a/b")),
        ("https://git.x/a/b", {"name": "gitlab"}, ("gitlab", "https://git.x/api/v4", "a/b")),
        ("https://x:84/a/b", {"name": "gitlab"}, ("gitlab", "https://x:84/api/v4", "a/b")),
        ("git@h:a/b", {"name": "gitlab", "api": "https://h/v/"}, ("gitlab", "https://h/v", "a/b")),
        ("https://git.acme.org/a/b", {}, None),
        ("/srv/config.git", {}, None),
        ("file:///srv/github.git", {}, None),
    ],
)  # fmt: skip
def test_the_forge_of_an_url(url, given, expected):
    assert find_forge(url, **given) == (expected and Forge(*expected))


def test_no_forge_can_be_made_of_it():
    with pytest.raises(InvalidInput, match="names no owner and repository"):
        find_forge("https://github.com/models.git")
    with pytest.raises(InvalidInput, match="unencrypted"):
        find_forge("git@h:a/b", "gitlab", "http://h/api/v4")
