"""The card as a whole: what it says, in what order, and that nothing escapes into markup."""

import base64
import hashlib
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from trimgate.judge import GatePolicy, gate, keep_baseline, select
from trimgate.judge.records import Interval, RuleResult, Verdict
from trimgate.report import (
    CardInput,
    headline,
    leaderboard_rows,
    refused_recipes,
    render_html,
    render_markdown,
    save_card,
    verdict_text,
)
from trimgate.report._fronts import pareto_plots
from trimgate.report._html import scripts
from trimgate.report._lineage import lineage_graph
from trimgate.report._rules import rule_row

Samples = dict[str, Callable[[], CardInput]]
VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """Tags, attributes and text of a page; fails on tags that do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_every_card_is_whole_small_and_needs_no_network(card: CardInput) -> None:
    html = render_html(card)
    page = Page(html)
    assert page.open == []
    assert len(html.encode()) < 1_000_000
    names = {tag for tag, _ in page.tags}
    assert not names & {"img", "link", "iframe", "object", "base", "form"}
    # One script at most, and the page's own policy lets no other run and nothing be loaded.
    written = re.findall("<script>(.*?)</script>", html, re.DOTALL)
    assert written in ([], [scripts()])
    assert [t for t, _ in page.tags].count("script") == len(written)
    policy = next(a["content"] for t, a in page.tags if a.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    for text in written:
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"script-src 'sha256-{digest}'" in policy
    assert not re.search(
        "fetch|XMLHttp|WebSocket|eval|innerHTML|localStorage|cookie|open\\(", scripts()
    )
    for _, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes)
        assert "src" not in attributes
        assert "href" not in attributes
    assert "url(" not in html
    assert "@import" not in html
    assert "nan" not in " ".join(page.text).lower().split()


def test_every_card_can_be_read_aloud(card: CardInput) -> None:
    page = Page(render_html(card))
    tags = [tag for tag, _ in page.tags]
    assert tags.count("h1") == 1
    assert tags.count("caption") == tags.count("table")
    assert all("scope" in a for tag, a in page.tags if tag == "th")
    for tag, attributes in page.tags:
        if tag == "svg":
            assert attributes.get("aria-label") or attributes.get("aria-hidden") == "true"
    identifiers = [a["id"] for _, a in page.tags if "id" in a]
    assert len(identifiers) == len(set(identifiers))
    assert all(a["aria-labelledby"] in identifiers for _, a in page.tags if "aria-labelledby" in a)


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("passing", "Passed"),
        ("rejected", "Rejected"),
        ("inconclusive", "Inconclusive"),
        ("baseline_kept", "Baseline kept"),
        ("refused_only", "Baseline kept"),
    ],
)
def test_the_verdict_comes_first(samples: Samples, name: str, word: str) -> None:
    card = samples[name]()
    # The Kubeflow UI previews the first 255 bytes of an artifact.
    assert word in render_html(card)[:255]
    assert render_markdown(card).startswith(f"# {word}: ")
    assert verdict_text(card).word == word


def test_sections_stand_in_order(samples: Samples) -> None:
    html = render_html(samples["passing"]())
    order = ["What changes", "Quality against what is gained", "Leaderboard", "The gate"]
    order += ["Answers that changed", "The served model", "Features no longer used"]
    order += ["Where the candidates come from", "How the winner was made", "How it was measured"]
    places = [html.index(f">{title}</h2>") for title in order]
    assert places == sorted(places)


def test_without_a_verdict_nothing_passes(samples: Samples) -> None:
    card = samples["passing"]().model_copy(update={"verdict": None})
    assert card.status == "inconclusive"
    assert "The gate did not run" in render_html(card)
    assert "What it would change" in render_html(card)


def test_a_verdict_that_keeps_the_baseline_is_no_rejection(samples: Samples) -> None:
    fail = RuleResult(rule="selection", outcome="fail", observed=None, limit=None, reason="none")
    kept = Verdict(
        outcome="fail",
        candidate="a",
        baseline="a",
        name="baseline",
        rules=(fail,),
        summary="Keep",
        keeps_baseline=True,
    )
    card = samples["baseline_kept"]().model_copy(update={"verdict": kept})
    assert card.status == "baseline"
    assert "Rejected" not in render_html(card)
    assert headline(card) == []


def test_headline_of_a_winner(samples: Samples) -> None:
    lines = [line.text.replace("\u202f", " ") for line in headline(samples["passing"]())]
    assert lines[:4] == [
        "3.10× faster [3.04, 3.16]",
        "71 % smaller",
        "average precision +0.10 pt [−0.20, +0.40]",
        "1.90× faster [1.86, 1.94]",
    ]
    assert "61 % less memory" in lines
    assert "1.82× faster served [1.75, 1.89]" in lines


def test_a_loss_is_called_one(samples: Samples) -> None:
    lines = headline(samples["extreme"]())  # its benchmark is that of the slower candidate
    assert lines[0].text == "1.33× slower [1.31, 1.36]"
    assert lines[0].tone == "bad"
    assert lines[1].text == "117× larger"
    assert lines[2].tone == "good"  # a lower RMSE, with its whole interval


def test_no_gain_is_claimed_within_the_noise(samples: Samples) -> None:
    card = samples["passing"]()
    assert card.benchmark is not None
    first = card.benchmark.batches[0]
    for ratio in (
        Interval(value=1.02, low=1.01, high=1.03),
        Interval(value=1.2, low=0.9, high=1.5),
    ):
        batches = (first.model_copy(update={"wall": ratio}),)
        benchmark = card.benchmark.model_copy(update={"batches": batches})
        line = headline(card.model_copy(update={"benchmark": benchmark}))[0]
        assert line.word == "as fast"
        assert line.tone == "neutral"


def test_a_void_timing_claims_nothing(samples: Samples) -> None:
    card = samples["extreme"]()
    void = card.candidates[3]
    lines = headline(card.model_copy(update={"benchmark": void.benchmark}))
    assert lines[0].text == "No claim"
    assert not any("faster" in line.text and line.topic.startswith("Latency,") for line in lines)
    row = next(r for r in leaderboard_rows(card.selection, card.candidates) if r.name == "void")
    assert {cell.value for cell in (*row.speedups.values(), row.cpu)} == {"void"}
    speed = next(plot for plot in pareto_plots(card) if plot["key"] == "speed")
    assert ">void</text>" not in speed["picture"]
    graph = lineage_graph(card)
    assert graph is not None
    assert "· void<" in graph["picture"]


def test_the_judge_s_own_records_make_a_card(samples: Samples) -> None:
    card = samples["passing"]()
    assert card.baseline_validation is not None
    assert card.winner_test is not None
    policy = GatePolicy(max_drop={"average_precision": 0.01}, min_speedup=1.1, max_size_ratio=0.9)
    chosen = select(card.baseline_validation, card.candidates, objective="latency", policy=policy)
    judged = gate(
        policy, baseline=card.baseline_test, candidate=card.winner_test, benchmark=card.benchmark
    )
    real = card.model_copy(update={"selection": chosen, "verdict": judged})
    rows = leaderboard_rows(chosen, card.candidates, card.baseline_validation)
    assert [r.rank for r in rows] == ["1", "2", "3", "4", "5"]
    assert rows[3].reference  # daal4py is slower than the baseline at one row
    assert real.status == "pass"
    html = render_html(real)
    assert "3 of 3 rules passed" in html
    assert html.count('class="plot forest"') == 3
    kept = keep_baseline(card.baseline_validation, "nothing was faster")
    assert real.model_copy(update={"verdict": kept}).status == "baseline"


def test_leaderboard_rows_hold_every_number(samples: Samples) -> None:
    card = samples["passing"]()
    rows = leaderboard_rows(card.selection, card.candidates, card.baseline_validation)
    assert [r.name for r in rows][-1] == "baseline"
    first = rows[0]
    assert first.winner
    assert first.steps[-1] == "ONNX"
    assert str(first.speedups[1]) == "3.10× [3.04, 3.16]"
    assert str(first.speedups[1000]) == "1.90× [1.86, 1.94]"
    assert first.size == "350\u202fKB"
    assert first.cold_start == "310\u202fms"
    assert rows[-1].reference


def test_the_baseline_leads_when_it_is_kept(samples: Samples) -> None:
    card = samples["baseline_kept"]()
    rows = leaderboard_rows(card.selection, card.candidates, card.baseline_validation)
    assert rows[0].name == "baseline"
    assert rows[0].winner


def test_refused_recipes_are_listed_once_and_not_ranked(samples: Samples) -> None:
    card = samples["refused_only"]()
    assert sorted(r.name for r in refused_recipes(card)) == ["OpenVINO", "prune", "static INT8"]
    html = render_html(card)
    assert "No recipe was measured" in html
    assert "neither VNNI nor AMX" in html


@pytest.mark.parametrize(
    ("rule", "limit", "shown", "shade_at_left"),
    [
        ("max_drop.accuracy", 0.01, "−1.00_pt", True),
        ("max_drop.rmse", 5.0, "+5.00", False),
        ("min.accuracy", 0.9, "90.00_%", True),
        ("min_speedup", 1.1, "1.10×", True),
        ("max_size_ratio", 0.5, "0.500×", False),
        ("max_peak_rss_mb", 512.0, "512_MiB", False),
        ("max_served_p99_ms", 20.0, "20.0_ms", False),
        ("max_disagreement", 0.01, "1.00_%", False),
    ],
)
def test_a_rule_shows_its_limit_and_the_refused_side(
    rule: str, limit: float, shown: str, shade_at_left: bool
) -> None:
    observed = Interval(value=limit * 1.1, low=limit, high=limit * 1.2, confidence=0.9)
    result = RuleResult(rule=rule, outcome="pass", observed=observed, limit=limit, reason="r")
    row = rule_row(result)
    assert row.limit == shown.replace("_", "\u202f")
    assert ('class="refused" x="0.0"' in row.picture) == shade_at_left
    assert row.label != rule


def test_the_level_of_a_one_sided_gate_is_told(samples: Samples) -> None:
    card = samples["passing"]()
    assert card.verdict is not None
    observed = Interval(value=0.001, low=-0.001, high=0.003, confidence=0.9)
    rules = (card.verdict.rules[0].model_copy(update={"observed": observed}),)
    told = card.model_copy(update={"verdict": card.verdict.model_copy(update={"rules": rules})})
    text = "".join(Page(render_html(told)).text).replace("\u202f", " ")
    assert "at 90 %, which is 95 % on the side that counts" in text


def test_no_text_of_the_user_becomes_markup(samples: Samples) -> None:
    card = samples["hostile"]()
    html, markdown = render_html(card), render_markdown(card)
    assert "<script" not in html
    assert "<img" not in html
    assert html.count("</title>") == html.count("<title>")
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 20
    assert "\\<script\\>" in markdown
    unescaped = markdown.replace("\\\\", "").replace("\\<", "").replace("\\[", "")
    assert "<script" not in unescaped
    assert "[x](" not in unescaped
    assert "`**" not in unescaped.replace("\\`\\*\\*", "")


def test_markdown_tables_are_even(card: CardInput) -> None:
    lines = render_markdown(card).splitlines()
    tables = [line for line in lines if line.startswith("| ")]
    columns = [line.replace("\\|", "").count("|") for line in tables]
    for before, after, line in zip(columns, columns[1:], tables[1:], strict=False):
        assert before == after or "---" not in line
    assert not any(line.startswith("<") for line in lines)


def test_markdown_says_what_the_card_says(samples: Samples) -> None:
    text = render_markdown(samples["passing"]()).replace("\u202f", " ")
    for part in ("71 % smaller", "## Leaderboard", "## Gate", "5 of 5 rules passed", "sha256:03"):
        assert part in text


def test_saving_writes_four_files_and_leaves_no_partial(tmp_path: Path, samples: Samples) -> None:
    card = samples["passing"]()
    path = save_card(card, tmp_path / "new" / "card")
    assert path.name == "card.html"
    names = sorted(p.name for p in path.parent.iterdir())
    assert names == ["card.html", "card.json", "card.md", "pull-request.md"]
    again = CardInput.model_validate(json.loads((path.parent / "card.json").read_text()))
    assert again == card
    assert render_html(again) == path.read_text(encoding="utf-8")


def test_a_wide_table_does_not_bloat_the_card(samples: Samples) -> None:
    card = samples["passing"]()
    assert card.winner is not None
    features = tuple(f"column_{i}" for i in range(20_000))
    winner = card.winner.model_copy(update={"features": features, "unused_features": features})
    html = render_html(card.model_copy(update={"winner": winner}))
    assert len(html) < 300_000
    assert "and 19\u202f850 more" in html


def test_a_step_of_another_version_is_shown_by_its_name(samples: Samples) -> None:
    card = samples["passing"]()
    assert card.winner is not None
    winner = card.winner.model_copy(update={"recipe": ({"technique": "distill", "layers": 3},)})
    html = render_html(card.model_copy(update={"winner": winner, "lineage": ()}))
    assert "distill layers 3" in html


def test_markdown_holds_the_numbers_of_the_plots(samples: Samples) -> None:
    text = render_markdown(samples["full"]()).replace("\u202f", " ").replace("\\", "")
    for part in (
        "## Slices of the test rows", "| score 0.8 to 1.0 | 320 | −6.00 pt [−8.00, −4.00]",
        "## Where the models decide", "Highest F1 on 28373 validation rows", "## Calibration",
        "## Latency under load: in the model server", "12 000 not sent", "## Cost",
        "116.80 → 58.40 USD a month", "An estimate, not a measurement.",
    ):  # fmt: skip
        assert part in text
    assert "alert(4)" not in text  # example rows stay on the HTML card
    huge = render_markdown(samples["fifty"]())
    assert len(huge) < 400_000  # where the Kubeflow UI cuts
