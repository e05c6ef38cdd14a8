from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kubernetes.utils.quantity import parse_quantity

from trimgate.errors import InvalidInput
from trimgate.ops.kserve import canonical

SUFFIXES = ["", "m", "u", "n", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"]


# Each pair is what the API server's own type writes.
@pytest.mark.parametrize(
    ("given_", "written"),
    [
        ("1.5", "1500m"), ("1500m", "1500m"), ("1000m", "1"), (2, "2"), ("0.1", "100m"),
        ("1024Mi", "1Gi"), ("1536Mi", "1536Mi"), ("0.5Gi", "512Mi"), ("1000", "1k"), ("0", "0"),
        ("512", "512"), ("0.5Ki", "512"), ("2000000", "2M"), (".5", "500m"), ("100u", "100u"),
    ],
)  # fmt: skip
def test_what_the_server_writes(given_, written):
    assert canonical(given_) == written


@given(st.decimals(0, 10**6, places=3), st.sampled_from(SUFFIXES))
def test_the_value_stays_and_the_form_is_final(number, suffix):
    quantity = f"{number}{suffix}"
    written = canonical(quantity)
    assert canonical(written) == written
    assert abs(parse_quantity(written) - parse_quantity(quantity)) < Decimal("1e-9")


@pytest.mark.parametrize("wrong", ["", "abc", "1 Gi", "-1", "1e3", "1gi", "1GiB", None, True])
def test_what_is_no_quantity(wrong):
    with pytest.raises(InvalidInput, match="is not a quantity"):
        canonical(wrong)
