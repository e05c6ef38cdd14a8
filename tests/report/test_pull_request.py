"""The card as a comment on a pull request."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from trimgate.report import CardInput, pull_request_markdown

Samples = dict[str, Callable[[], CardInput]]
GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", ["full", "rejected", "baseline_kept"])
def test_golden(samples: Samples, name: str, golden: Callable[[Path, str], None]) -> None:
    golden(GOLDEN / f"pull-request-{name}.md", pull_request_markdown(samples[name]()))


def test_the_verdict_comes_first(card: CardInput) -> None:
    text = pull_request_markdown(card)
    assert re.match("## (✅ Passed|❌ Rejected|❔ Inconclusive|➖ Baseline kept): ", text)
    assert text.count("<details>") == text.count("</details>") > 0
    assert len(text) < 65_536


def test_what_does_not_fit_is_left_out_and_said(samples: Samples) -> None:
    card = samples["passing"]()
    assert card.verdict is not None
    rules = tuple(
        card.verdict.rules[0].model_copy(update={"rule": f"r{i}", "reason": "why " * 50})
        for i in range(2000)
    )
    many = card.verdict.model_copy(update={"rules": rules, "summary": "s"})
    text = pull_request_markdown(card.model_copy(update={"verdict": many}))
    assert len(text) < 65_536
    assert "Left out for length, see the card: Gate: 2000 of 2" not in text  # numbers are grouped
    assert "Left out for length, see the card: Gate" in text
    assert "<summary>Leaderboard" in text


def test_nobody_is_notified_and_nothing_linked(samples: Samples) -> None:
    card = samples["passing"]().model_copy(update={"run": "@everyone #12 https://x.org www.y.org"})
    text = pull_request_markdown(card)
    assert "@everyone" not in text
    assert "#12" not in text
    assert "://x" not in text
    assert "www.y" not in text


def test_hostile_text_stays_text(samples: Samples) -> None:
    text = pull_request_markdown(samples["hostile"]())
    plain = text.replace("\\\\", "").replace("\\<", "").replace("\\[", "")
    tags = set(re.findall("</?([a-z]+)", plain))
    assert tags == {"details", "summary"}
