from trimgate.report._steps import effects, parameters
from trimgate.techniques import parse_step


def test_only_what_differs_from_the_defaults_is_shown():
    step = parse_step({"technique": "prune", "amount": 0.3}).model_dump(mode="json")
    assert parameters(step) == [("amount", "0.3")]
    assert parameters(parse_step({"technique": "prune"}).model_dump(mode="json")) == []


def test_a_step_of_another_version_is_shown_whole():
    step = {"technique": "freeze", "degrees": 3, "slowly": True}
    assert parameters(step) == [("degrees", "3"), ("slowly", "yes")]


def test_effects():
    notes = {
        "trees_before": 1200,
        "trees_after": 53,
        "metric_before": 0.5,
        "metric_after": 0.25,
        "depth_before": None,
        "lonely_before": 1,
        "parity": {"max_difference": 2e-7},
    }
    assert effects(notes) == [
        ("trees", "1\u2009200 → 53"),
        ("metric", "0.5 → 0.25"),
        ("largest difference of a score", "2e\u221207"),
    ]
