"""Constrained objectives, and what selection promises of every set of candidates."""

import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trimgate.config import parse_config
from trimgate.errors import InvalidInput
from trimgate.judge.constraints import excess
from trimgate.judge.objective import CHEAPEST, Constrained, dump, goal, label
from trimgate.judge.policy import GatePolicy
from trimgate.judge.records import Candidate, Cost, Interval, LoadPoint, LoadResult
from trimgate.judge.selection import select

MIB = 2**20


@pytest.fixture(scope="module")
def world(make_pair, make_benchmark):
    """A baseline on validation, and a quick maker of candidates."""
    baseline, evaluation = make_pair(4000, split="validation")

    def make(name, value=2.0, *, spread=0.02, steps=1, drop=0.0, doubt=0.002, **benchmark):
        primary = evaluation.primary
        difference = Interval(value=-drop, low=-drop - doubt, high=-drop + doubt, confidence=0.9)
        own = evaluation.metrics[primary]
        own = own.model_copy(
            update={"interval": own.interval.model_copy(update={"value": 0.95 - drop})}
        )
        measured = make_benchmark(
            value * (1 - spread), value, value * (1 + spread), model=name, **benchmark
        )
        return Candidate(
            name=name,
            uri=f"/models/{name}",
            model=name,
            steps=tuple({"technique": f"t{n}"} for n in range(steps)),
            evaluation=evaluation.model_copy(
                update={
                    "model": name,
                    "differences": {primary: difference},
                    "metrics": {primary: own},
                }
            ),
            benchmark=measured,
        )

    return baseline, make


def line(selection, name):
    return next(entry for entry in selection.ranking if entry.name == name)


def test_the_least_of_what_keeps_every_limit(world):
    baseline, make = world
    goal_ = Constrained(minimize="cost", subject_to={"size_mb": 20, "memory_mb": 120})
    candidates = [
        make("cheapest", 5.0, size=25 * MIB),
        make("cheap", 3.0, size=20 * MIB),
        make("dear", 2.0, size=5 * MIB),
        make("heavy", 9.0, size=5 * MIB, rss=150 * MIB),
    ]
    found = select(baseline, candidates, objective=goal_)
    assert found.winner == "cheap"
    assert found.constraints == {"size_mb": 20, "memory_mb": 120}
    assert found.objective == "least cost of size_mb up to 20, memory_mb up to 120"
    assert line(found, "cheapest").excess == {
        "size_mb": "size_mb is 25, 5 (25.0%) beyond the limit of 20"
    }
    assert not line(found, "heavy").admissible
    assert "30 (25.0%) beyond the limit of 120" in line(found, "heavy").reason
    assert line(found, "cheap").excess == {}


def test_nothing_feasible_says_who_breaks_what_and_by_how_little(world):
    baseline, make = world
    goal_ = Constrained(minimize="size", subject_to={"latency_p50_ms": 0.5, "size_mb": 1})
    found = select(
        baseline,
        [make("a", 3.0, size=10), make("b", 4.0, size=2 * MIB)],
        objective=goal_,
    )
    assert found.winner == "baseline"
    assert "none of 2 candidates wins within the limits" in found.reason
    assert "a: latency_p50_ms is 1, 0.5 (100.0%) beyond the limit of 0.5" in found.reason
    assert "size_mb is 2, 1 (100.0%) beyond" in found.reason
    assert "the baseline does not keep them either" in found.reason


def test_intervals_are_respected(world):
    baseline, make = world
    # 1 ms, and as uncertain as the ratio: up to 1.25 ms
    unsure = make("unsure", 2.0, spread=0.2)
    sure = make("sure", 1.5, spread=0.01)
    goal_ = Constrained(minimize="latency", subject_to={"latency_p95_ms": 1.1})
    found = select(baseline, [unsure, sure], objective=goal_)
    assert found.winner == "sure"
    assert "is 1 but may be 1.25" in line(found, "unsure").reason
    strict = Constrained(minimize="latency", subject_to={"drop": 0.005})
    kept = make("kept", 1.5, drop=0.002, doubt=0.002)
    open_ = make("open", 3.0, drop=0.004, doubt=0.002)
    found = select(baseline, [kept, open_], objective=strict)
    assert found.winner == "kept"
    assert "drop is 0.004 but may be 0.006" in line(found, "open").reason


def test_a_baseline_that_breaks_a_limit_is_beaten_by_anything_that_keeps_it(world):
    baseline, make = world  # its peak is 200 MiB
    small = make("small", 0.8, rss=90 * MIB)
    within = Constrained(minimize="cost", subject_to={"memory_mb": 100})
    assert select(baseline, [small], objective=within).winner == "small"
    loose = Constrained(minimize="cost", subject_to={"memory_mb": 300})
    assert select(baseline, [small], objective=loose).winner == "baseline"


def test_what_was_not_measured_keeps_no_limit(world):
    baseline, make = world
    entry = make("c", 3.0)
    found = select(
        baseline,
        [entry],
        objective=Constrained(minimize="latency", subject_to={"cost_per_million": 5}),
    )
    assert found.winner == "baseline"
    assert "cost_per_million is not known: no price is known" in found.reason
    priced = entry.benchmark.model_copy(
        update={
            "cost": Cost(
                baseline=8.0,
                candidate=4.0,
                ratio=entry.benchmark.batches[0].cpu,
                currency="USD",
                price="x",
                price_per_core_hour=1.0,
            )
        }
    )
    goal_ = Constrained(minimize="latency", subject_to={"cost_per_million": 5})
    assert excess(goal_, priced, None) == {}
    assert "8" in excess(goal_, priced, None, baseline=True)["cost_per_million"]


@pytest.mark.parametrize(
    ("valid", "p99", "high", "told"),
    [
        (True, 0.004, 0.0045, None),
        (True, 0.004, 0.0060, "may be 6"),
        (True, None, None, "there is no 99th percentile"),
        (False, 0.004, 0.0045, "the load test does not count"),
    ],
)
def test_p99_is_that_under_load_where_there_is_one(world, valid, p99, high, told):
    _, make = world
    interval = high and Interval(value=p99, low=0.003, high=high)
    point = LoadPoint(
        requests=1000, errors=0, dropped=0, late=0, achieved=100.0, p50=0.001, p95=0.002, p99=p99,
        p99_interval=interval,
    )  # fmt: skip
    loaded = LoadResult(
        where="session", rate=100, concurrency=1, candidate=point, valid=valid, reason="busy"
    )
    benchmark = make("c", 3.0).benchmark.model_copy(update={"load": (loaded,)})
    broken = excess(Constrained(minimize="cost", subject_to={"latency_p99_ms": 5}), benchmark, None)
    assert broken == {} if told is None else told in broken["latency_p99_ms"]


def test_cheapest_that_passes_leaves_out_what_is_not_shown(world):
    baseline, make = world
    policy = GatePolicy(max_drop={"accuracy": 0.01})
    doubtful = make("doubtful", 9.0, drop=0.008, doubt=0.005)
    shown = make("shown", 2.0, drop=0.001, doubt=0.005)
    found = select(baseline, [doubtful, shown], objective=goal(CHEAPEST), policy=policy)
    assert found.winner == "shown"
    assert "do not show that it keeps max_drop.accuracy" in line(found, "doubtful").reason
    only = select(baseline, [doubtful], objective=goal(CHEAPEST), policy=policy)
    assert only.winner == "baseline"
    assert select(baseline, [doubtful, shown], objective="cost", policy=policy).winner == "shown"


def test_goals_survive_a_pipeline():
    within = Constrained(minimize="size", subject_to={"drop": 0.01})
    for given_ in ("size", {"latency": 1, "size": 3}, CHEAPEST, within):
        assert dump(goal(dump(goal(given_)))) == dump(goal(given_))
    assert goal({"minimize": "size", "subject_to": {"drop": 0.01}}) == within
    assert label(goal(CHEAPEST)) == "least cost of what passes the gate's rules on validation"


def config(objective):
    return parse_config(
        {
            "name": "m",
            "model": {"path": "m.onnx"},
            "data": {"path": "d.csv", "label": "y"},
            "objective": objective,
        }
    )


def test_objectives_in_the_config():
    assert config("cheapest-that-passes").goal.shown
    found = config({"minimize": "cost", "subject_to": {"latency_p99_ms": 5, "drop": 0.005}}).goal
    assert found.subject_to == {"latency_p99_ms": 5, "drop": 0.005}
    assert config({"latency": 2, "size": 1}).goal == {"latency": 2, "size": 1}
    with pytest.raises(InvalidInput, match=r"^objective\.subject_to\.latency_p99 = "):
        config({"minimize": "cost", "subject_to": {"latency_p99": 5}})
    with pytest.raises(InvalidInput, match=r"^objective\.minimize: the key is missing"):
        config({"subject_to": {"drop": 0.1}})
    with pytest.raises(InvalidInput, match=r"^objective = 'cheap': input should be 'latency'"):
        config("cheap")


CANDIDATES = st.lists(
    st.tuples(
        st.sampled_from([0.8, 1.0, 1.02, 1.5, 1.53, 2.0, 2.05, 4.0]),  # gain
        st.sampled_from([0.001, 0.05, 0.3]),  # its spread
        st.integers(1, 3),  # steps
        st.sampled_from([10 * MIB, 20 * MIB, 30 * MIB]),
        st.sampled_from([50 * MIB, 100 * MIB, 400 * MIB]),
        st.sampled_from([0.0, 0.004, 0.02]),  # drop
        st.sampled_from([0.001, 0.01]),  # its doubt
    ),
    min_size=1,
    max_size=6,
)
GOALS = st.one_of(
    st.sampled_from(["latency", "size", "memory", "cost", CHEAPEST]),
    st.builds(
        Constrained,
        minimize=st.sampled_from(["latency", "size", "cost"]),
        subject_to=st.dictionaries(
            st.sampled_from(["drop", "size_mb", "memory_mb", "latency_p50_ms"]),
            st.sampled_from([0.005, 15.0, 25.0, 200.0]),
        ),
    ),
)


@given(CANDIDATES, GOALS, st.randoms(use_true_random=False))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_promises_of_selection(world, rows, wanted, random):
    baseline, make = world
    objective = goal(wanted)
    candidates = [
        make(f"c{n}", gain, spread=spread, steps=steps, size=size, rss=rss, drop=drop, doubt=doubt)
        for n, (gain, spread, steps, size, rss, drop, doubt) in enumerate(rows)
    ]
    found = select(baseline, candidates, objective=objective)
    shuffled = random.sample(candidates, len(candidates))
    assert select(baseline, shuffled, objective=objective) == found, "the order does not matter"
    admissible = [entry for entry in found.ranking if entry.admissible]
    if found.winner == "baseline":
        assert [entry.name for entry in admissible] == ["baseline"]
        return
    winner = next(c for c in candidates if c.name == found.winner)
    assert line(found, winner.name).admissible
    if isinstance(objective, Constrained):
        assert excess(objective, winner.benchmark, winner.evaluation) == {}, "it is feasible"

    def shown(entry):
        return "do not show" not in line(found, entry.name).reason

    def point(entry):
        benchmark = entry.benchmark
        return (
            entry.evaluation.metrics["accuracy"].interval.value,
            benchmark.batches[0].wall.value,
            -benchmark.candidate.size,
            -benchmark.candidate.peak_rss,
            -len(entry.steps),
            shown(entry),
        )

    others = [c for c in candidates if c is not winner and line(found, c.name).admissible]
    for other, mine in itertools.product(map(point, others), [point(winner)]):
        dominated = other != mine and all(a >= b for a, b in zip(other, mine, strict=True))
        assert not dominated
