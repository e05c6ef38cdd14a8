import pytest

from trimgate.judge.policy import GatePolicy
from trimgate.judge.records import Candidate
from trimgate.judge.selection import select


@pytest.fixture
def world(make_pair, make_benchmark):
    """A baseline on validation, and a maker of candidates."""
    baseline, _ = make_pair(4000, split="validation")

    def make(name, value=2.0, *, spread=0.02, lost=0, steps=1, **benchmark):
        _, evaluation = make_pair(4000, lost=lost, split="validation")
        measured = make_benchmark(
            value * (1 - spread), value, value * (1 + spread), model=name, **benchmark
        )
        return Candidate(
            name=name,
            uri=f"/models/{name}",
            model=name,
            steps=tuple({"technique": f"t{n}"} for n in range(steps)),
            evaluation=evaluation.model_copy(update={"model": name}),
            benchmark=measured,
        )

    return baseline, make


def line(selection, name):
    return next(entry for entry in selection.ranking if entry.name == name)


def test_the_fastest_that_is_good_enough_wins(world):
    baseline, make = world
    candidates = [make("slow", 1.5), make("fast", 3.0), make("broken", 9.0, lost=100)]
    selection = select(baseline, candidates, objective="latency", baseline_uri="/b")
    assert selection.winner == "fast"
    assert [entry.name for entry in selection.ranking] == ["fast", "slow", "baseline", "broken"]
    assert [entry.rank for entry in selection.ranking] == [1, 2, 3, 4]
    assert not line(selection, "broken").admissible
    assert "0.025 worse on validation" in line(selection, "broken").reason
    assert line(selection, "baseline").uri == "/b"
    assert [entry.winner for entry in selection.ranking] == [True, False, False, False]


def test_the_order_of_the_candidates_does_not_matter(world):
    baseline, make = world
    candidates = [make("a", 2.0), make("b", 2.01), make("c", 1.2), make("d", 0.5)]
    first = select(baseline, candidates, objective="latency")
    assert first == select(baseline, candidates[::-1], objective="latency")


def test_ties_go_to_fewer_steps_then_to_the_smaller(world):
    baseline, make = world
    simple, long = make("simple", 2.95, steps=1), make("long", 3.0, steps=3)
    selection = select(baseline, [long, simple], objective="latency")
    assert selection.winner == "simple"
    assert "cannot be told from long" in selection.reason
    assert selection.ranking[0].name == "simple"
    small, large = make("small", 2.95, size=10), make("large", 3.0, size=20)
    assert select(baseline, [large, small], objective="latency").winner == "small"
    assert select(baseline, [make("far", 3.2, steps=3), simple], objective="latency").winner == (
        "far"
    )


def test_a_gain_that_was_not_shown_is_not_worth_a_step(world):
    baseline, make = world
    simple = make("simple", 2.0, steps=1, spread=0.1)
    selection = select(
        baseline, [make("long", 2.3, steps=2, spread=0.1), simple], objective="latency"
    )
    assert selection.winner == "simple"
    small = make("small", 1.9, steps=1, spread=0.1, size=10)
    assert select(baseline, [small, simple], objective="latency").winner == "simple"
    clearly = make("long", 2.6, steps=2, spread=0.1)
    assert select(baseline, [clearly, simple], objective="latency").winner == "long"


@pytest.mark.parametrize(
    ("value", "spread"),
    [
        (0.75, 0.01),  # slower, whatever sequential timing said
        (1.02, 0.001),  # sure, but below what two sessions differ by
        (1.5, 0.6),  # not sure
    ],
)
def test_a_gain_that_is_not_real_keeps_the_baseline(world, value, spread):
    baseline, make = world
    selection = select(baseline, [make("c", value, spread=spread)], objective="latency")
    assert selection.winner == "baseline"
    assert selection.ranking[0].name == "baseline"
    assert selection.ranking[0].winner
    assert "not surely faster" in selection.reason


def test_no_candidates_keep_the_baseline(world):
    baseline, _ = world
    selection = select(baseline, [], objective="size")
    assert (selection.winner, selection.reason) == ("baseline", "there are no candidates")
    assert line(selection, "baseline").pareto


def test_what_cannot_be_trusted_is_not_admissible(world, make_pair):
    baseline, make = world
    good = make("good", 1.5)
    test_split = make_pair(4000)[1].model_copy(update={"model": "leak"})
    candidates = [
        good,
        make("void", 9.0, state="void", control=1.1),
        make("other-baseline", 9.0, baseline="x"),
        make("leak", 9.0).model_copy(update={"evaluation": test_split}),
        make("swapped", 9.0).model_copy(update={"model": "x"}),
        make("bare", 9.0).model_copy(update={"benchmark": None}),
        Candidate(name="refused", uri="", model="", steps=(), refusal="no INT8 here"),
    ]
    selection = select(baseline, candidates, objective="latency")
    assert selection.winner == "good"
    assert [entry.name for entry in selection.ranking if entry.admissible] == ["good", "baseline"]
    assert line(selection, "refused").reason == "no INT8 here"
    assert "void" in line(selection, "void").reason


def test_other_objectives(world):
    baseline, make = world
    tiny = make("tiny", 0.9, size=10)
    light = make("light", 1.1, rss=50 * 2**20)
    assert select(baseline, [tiny, light], objective="size").winner == "tiny"
    assert select(baseline, [tiny, light], objective="memory").winner == "light"
    assert select(baseline, [tiny, light], objective="throughput").winner == "light"


def test_a_candidate_that_cannot_pass_the_gate_is_not_put_forward(world):
    baseline, make = world
    policy = GatePolicy(max_drop={"accuracy": 0.001}, max_size_ratio=0.4)
    candidates = [make("large", 5.0), make("lossy", 4.0, size=10, lost=8), make("ok", 2.0, size=10)]
    selection = select(baseline, candidates, objective="latency", policy=policy)
    assert selection.winner == "ok"
    assert "max_size_ratio" in line(selection, "large").reason
    assert "0.002 worse" in line(selection, "lossy").reason


def test_pareto_front(world):
    baseline, make = world
    candidates = [
        make("fast", 3.0, size=60),
        make("small", 2.0, size=20),
        make("dominated", 1.9, size=70),
        make("lossy", 9.0, lost=2, size=99),
    ]
    selection = select(baseline, candidates, objective="latency")
    front = {entry.name for entry in selection.ranking if entry.pareto}
    assert front == {"fast", "small", "lossy"}


def test_misuse_is_an_error(world, make_pair):
    baseline, make = world
    with pytest.raises(ValueError, match="validation split"):
        select(make_pair(100)[0], [], objective="latency")
    with pytest.raises(ValueError, match="names must differ"):
        select(baseline, [make("a"), make("a")], objective="latency")
