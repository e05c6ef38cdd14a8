"""GitHub's and GitLab's calls against strict fakes on loopback."""

import logging
from types import SimpleNamespace

import pytest
from ops.fake_forges import TOKEN, fake_forge

from trimgate.errors import InvalidInput
from trimgate.ops import forges
from trimgate.ops.forges import Forge, ForgeError, find_forge, open_request

ASKED = {
    "branch": "trimgate/production/fraud-1",
    "base": "main",
    "title": "Promote",
    "body": "card",
}


@pytest.fixture(params=["github", "gitlab"])
def forge(request, monkeypatch):
    """A forge on loopback, with a token for it in the environment."""
    monkeypatch.setenv("TRIMGATE_GIT_TOKEN", TOKEN)
    monkeypatch.delenv("TRIMGATE_FORGE_TOKEN", raising=False)
    github = request.param == "github"
    with fake_forge(request.param) as server:
        project = "acme/models" if github else "acme/ml/models"
        made = Forge(request.param, server.url, project)
        yield SimpleNamespace(server=server, forge=made, github=github)


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
