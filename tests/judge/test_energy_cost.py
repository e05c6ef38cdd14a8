import numpy as np
import pytest

from trimgate.errors import InvalidInput
from trimgate.judge import cost, energy
from trimgate.judge.energy import Rapl
from trimgate.targets import PROFILES, Price, Target


@pytest.fixture
def counters(tmp_path):
    """Two processor packages and what is no package, as Linux shows them."""
    for name, kind, value in (
        ("intel-rapl:0", "package-0", 900),
        ("intel-rapl:1", "package-1", 10),
        ("intel-rapl:2", "psys", 5),
        ("intel-rapl:0:0", "core", 7),
    ):
        zone = tmp_path / name
        zone.mkdir()
        (zone / "name").write_text(kind + "\n")
        (zone / "energy_uj").write_text(f"{value}\n")
        (zone / "max_energy_range_uj").write_text("999\n")
    return tmp_path


def add(root, zone, microjoules):
    file = root / zone / "energy_uj"
    file.write_text(str((int(file.read_text()) + microjoules) % 1000))


def test_counters_of_the_packages_are_read_and_start_again_at_zero(counters):
    meter = Rapl(counters)
    before = meter.read()
    assert before == [900, 10]
    add(counters, "intel-rapl:0", 300)  # beyond its largest value
    add(counters, "intel-rapl:1", 40)
    assert meter.joules(before, meter.read()) == pytest.approx(340e-6)
    assert energy.available(counters)


def test_where_nothing_can_be_read_there_is_no_meter(tmp_path):
    assert not energy.available(tmp_path)
    with pytest.raises(OSError, match="no energy counters"):
        Rapl(tmp_path)


def test_a_model_that_takes_three_times_the_energy_is_found_out(counters, monkeypatch):
    monkeypatch.setattr(energy, "_LEAST_SECONDS", 0.0)
    calls = {"baseline": 0, "candidate": 0}

    def use(name, microjoules):
        def call():
            calls[name] += 1
            if calls[name] % 3 == 0:  # not so often that a counter goes round
                add(counters, "intel-rapl:1", microjoules)

        return call

    found = energy.measure(
        {"baseline": use("baseline", 30), "candidate": use("candidate", 10)},
        Rapl(counters), batch_size=4, seconds=0.012, seed=0,
    )  # fmt: skip
    assert found.source == "rapl"
    assert found.ratio.low <= found.ratio.value <= found.ratio.high
    assert found.ratio.value == pytest.approx(3.0, rel=0.6)
    assert found.baseline > found.candidate > 0


def test_an_estimate_says_that_it_is_one(make_benchmark):
    batch = make_benchmark().batches[0]
    found = energy.estimate(batch)
    assert found.source == "estimate"
    assert "not measured" in found.method
    assert "3.5 W" in found.method
    assert found.baseline == pytest.approx(1000 * 2e-3 * 3.5)
    assert found.ratio == batch.cpu
    assert energy.estimate(batch, 10.0).candidate == pytest.approx(1000 * 1e-3 * 10)


def test_the_table_that_comes_with_it_names_its_source():
    found = cost.price("c7i.large")
    assert found.per_core_hour == pytest.approx(0.08925 / 2)
    assert found.currency == "USD"
    assert "us-east-1" in found.table
    assert "2026" in found.table
    for profile in PROFILES.values():
        if profile.price is not None:
            assert cost.price_of(profile).per_core_hour > 0


def test_cost_per_million_and_per_month(make_benchmark):
    batches = make_benchmark().batches  # 2 ms of CPU before, 1 ms after
    target = Target(
        name="t", threads=2, price=Price(name="x", per_core_hour=3.6, currency="EUR"), traffic=1500
    )
    found = cost.cost(batches, target)
    assert found.baseline == pytest.approx(1e6 * 2e-3 * 3.6 / 3600)
    assert found.candidate == pytest.approx(found.baseline / 2)
    assert found.ratio == batches[0].cpu
    assert found.currency == "EUR"
    # 1500/s x 2 ms = 3 cores busy; of machines with 2 at 60 %: 2.5, so 3; after: 1.25, so 2
    assert found.baseline_month == pytest.approx(3 * 2 * 3.6 * 730)
    assert found.candidate_month == pytest.approx(2 * 2 * 3.6 * 730)


def test_no_price_no_cost_and_a_void_timing_gives_none(make_benchmark):
    batches = make_benchmark().batches
    assert cost.cost(batches, Target(name="t")) is None
    void = make_benchmark(state="void", control=1.2).batches
    assert cost.cost(void, PROFILES["cloud-cpu"]) is None
    hourly = cost.cost(batches, Target(name="t", threads=4, price_per_hour=0.4))
    assert hourly.price_per_core_hour == pytest.approx(0.1)
    assert hourly.traffic is hourly.baseline_month is None


def test_a_gpu_is_paid_by_wall_time(make_benchmark):
    batch = make_benchmark().batches[0]
    batch = batch.model_copy(
        update={"baseline": batch.baseline.model_copy(update={"cpu": 1.0}), "cpu": batch.control}
    )
    found = cost.cost([batch], PROFILES["gpu"])
    assert found.baseline == pytest.approx(1e6 * 2e-3 * 1.006 / 3600)
    assert found.ratio == batch.wall


def test_a_table_of_the_user(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "name: ours\nsource: the invoice\ndate: 2026-10\ncurrency: CHF\n"
        "machines: {box: {per_hour: 0.5, cores: 8}}\n"
    )
    assert cost.price("box", file).per_core_hour == pytest.approx(0.0625)
    with pytest.raises(InvalidInput, match=r"target.price = 'rack'.*use one of box"):
        cost.price("rack", file)
    file.write_text("name: ours\nmachines: {box: {per_hour: -1, cores: 8}}\n")
    with pytest.raises(InvalidInput, match="is not a price table"):
        cost.price("box", file)


def test_monthly_machines_are_never_less_than_one(make_benchmark):
    target = Target(name="t", price_per_hour=1.0, traffic=1e-6)
    found = cost.cost(make_benchmark().batches, target)
    assert found.candidate_month == pytest.approx(730)
    assert np.isfinite(found.baseline_month)
