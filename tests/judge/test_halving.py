import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimgate.judge.halving import LEAST, halve
from trimgate.judge.records import Interval, Trial


def trial(name, drop=0.0, gain=2.0, *, width=0.01, seconds=10.0, scale=1.0, refusal=None):
    if refusal:
        return Trial(name=name, refusal=refusal)
    return Trial(
        name=name,
        difference=Interval(value=-drop, low=-drop - width, high=-drop + width),
        gain=gain,
        scale=scale,
        full_seconds=seconds,
    )


def run(trials, **changes):
    settings = {"keep": 0.5, "higher_is_better": True, "hopeless": 0.1, **changes}
    return halve(trials, **settings)


def reason(result, name):
    return next(line.reason for line in result.lines if line.name == name)


def test_the_better_half_goes_on():
    result = run([trial("a", gain=1.1), trial("b", gain=3), trial("c", gain=2), trial("d", 0.05)])
    assert result.survivors == ["b", "c"]
    assert reason(result, "d") == "ranked 3 of 4 on the sample, and 2 go on"


def test_a_recipe_that_is_best_in_either_stands_in_the_first_front():
    accurate, fast = trial("accurate", -0.01, 1.2), trial("fast", 0.05, 5.0)
    dominated = [trial(f"x{n}", 0.06, 1.1 - n / 100) for n in range(4)]
    assert set(run([*dominated, accurate, fast], keep=0.3).survivors) == {"accurate", "fast"}


def test_hopeless_recipes_end_whatever_their_rank():
    result = run([trial("broken", 0.3, 9.0), trial("a"), trial("b", gain=1.5)], keep=0.9)
    assert "broken" not in result.survivors
    assert reason(result, "broken").startswith("hopeless on the sample: at least 0.29 worse")


def test_an_interval_that_allows_hope_goes_on():
    result = run([trial("unsure", 0.3, 9.0, width=0.25), trial("a")], keep=0.9)
    assert "unsure" in result.survivors


def test_for_errors_less_is_better_and_the_scale_counts():
    worse = Trial(
        name="worse", difference=Interval(value=5, low=4, high=6), gain=9, scale=100, full_seconds=1
    )
    assert run([worse, trial("a")], higher_is_better=False).survivors == ["worse", "a"]
    hopeless = worse.model_copy(update={"scale": 10})
    assert run([hopeless, trial("a")], higher_is_better=False).survivors == ["a"]


def test_what_does_not_fit_the_time_does_not_go_on():
    trials = [trial("a", gain=4, seconds=50), trial("b", gain=3, seconds=50), trial("c", gain=2)]
    result = run(trials, keep=0.99, seconds=70)
    assert result.survivors == ["a", "c"]
    assert "would take about 50 s, and 20 s of the budget" in reason(result, "b")


def test_one_goes_on_even_if_it_takes_too_long():
    assert run([trial("a", seconds=1e6), trial("b", gain=1.5, seconds=1e6)], seconds=1).survivors


def test_refusals_keep_their_reason():
    result = run([trial("a"), trial("no", refusal="needs a GPU")])
    assert reason(result, "no") == "needs a GPU"
    assert run([trial("no", refusal="needs a GPU")]).survivors == []


def test_names_must_differ():
    with pytest.raises(ValueError, match="names must differ"):
        run([trial("a"), trial("a")])


@given(
    st.lists(st.tuples(st.floats(-0.05, 0.05), st.floats(0.1, 100)), min_size=1, max_size=12),
    st.floats(0.05, 0.95),
    st.none() | st.integers(1, 12),
)
def test_every_recipe_has_one_line_and_no_survivor_is_dominated_by_a_loser(points, keep, most):
    trials = [trial(f"r{n}", drop, gain) for n, (drop, gain) in enumerate(points)]
    result = run(trials, keep=keep, most=most)
    assert sorted(line.name for line in result.lines) == sorted(t.name for t in trials)
    places = max(LEAST, math.ceil(keep * len(trials)))
    assert len(result.survivors) == min(places, len(trials), most or len(trials))
    by_name = {t.name: (t.difference.value, t.gain) for t in trials}
    out = [by_name[line.name] for line in result.lines if not line.goes_on]
    for name in result.survivors:
        quality, gain = by_name[name]
        assert not any(o != (quality, gain) and o[0] >= quality and o[1] >= gain for o in out)
    assert run(trials[::-1], keep=keep, most=most).survivors == result.survivors
