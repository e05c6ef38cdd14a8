"""What the card says that distillation added."""

from collections.abc import Callable
from typing import Any

import pytest

from trimgate.report import render_html, render_markdown
from trimgate.report._card import CardInput
from trimgate.report._distillation import distillation

NOTES: dict[str, Any] = {
    "metric": "accuracy", "higher_is_better": True, "rows": 1000, "teacher": 0.842,
    "student": 0.822, "control": 0.81, "kept": "student",
    "added": {"value": 0.012, "low": 0.003, "high": 0.021, "confidence": 0.95},
}  # fmt: skip


def said(low: float, value: float, high: float, **more: Any) -> str:
    text = distillation({**NOTES, "added": {"value": value, "low": low, "high": high}, **more})
    return text.replace("\u202f", " ").replace("\u2212", "-")


def test_a_gain_is_claimed_with_its_interval() -> None:
    assert said(0.003, 0.012, 0.021) == (
        "Distillation added +1.20 pt [+0.30, +2.10] accuracy over the same student trained on "
        "labels alone, on 1 000 validation rows (82.2 % and 81.0 %; the teacher has 84.2 %)."
    )


def test_an_interval_around_nothing_claims_nothing() -> None:
    text = said(-0.003, 0.012, 0.021, kept="control")
    assert text.startswith("Distillation added nothing that these 1 000 validation rows can show")
    assert text.endswith("So the one trained on labels alone was kept.")


def test_harm_is_called_harm() -> None:
    assert said(-0.03, -0.02, -0.01).startswith("Distillation made it worse: accuracy -2.00 pt")


@pytest.mark.parametrize(("sign", "words"), [(-1, "less is better"), (1, "made it worse")])
def test_less_is_better_for_errors(sign: int, words: str) -> None:
    errors = {"metric": "rmse", "higher_is_better": False, "teacher": 2.0}
    low, high = sorted((sign * 0.1, sign * 0.3))
    assert words in said(low, sign * 0.2, high, student=2.1, control=2.3, **errors)


def test_other_notes_say_nothing() -> None:
    assert distillation({"metric": "accuracy", "amount": 0.5}) == ""


def test_both_cards_have_it(samples: dict[str, Callable[[], CardInput]]) -> None:
    card = samples["passing"]()
    assert card.winner is not None
    step = {"technique": "distill", "student": {"layers": 3}}
    winner = card.winner.model_copy(update={"recipe": (step,), "notes": {"distill": NOTES}})
    told = card.model_copy(update={"winner": winner, "lineage": ()})
    for text in (render_html(told), render_markdown(told)):
        assert "over the same student trained on labels alone" in text
    plain = render_html(card)
    assert "trained on labels alone" not in plain
