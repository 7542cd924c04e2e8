"""Numbers as people read them."""

import pytest
from bakeoff.reports import formats


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (formats.fixed(-0.1234), "−0.123"),
        (formats.fixed(0.1234, sign=True), "+0.123"),
        (formats.fixed(-0.0001), "0.000"),
        (formats.fixed(float("nan")), "–"),
        (formats.span(-0.1, 0.25, 2), "[−0.10, 0.25]"),
        (formats.span(float("nan"), 1.0, 2), ""),
        (formats.percent(0.825), "82%"),
        (formats.whole(12345.0), "12\u2009345"),
        (formats.si(0), "0"),
        (formats.si(60), "60"),
        (formats.si(5.98e12), "5.98 T"),
        (formats.si(999_900), "1.00 M"),
        (formats.size(1.3e9), "1.21 GiB"),
        (formats.size(512), "512 B"),
        (formats.duration(0), "0 s"),
        (formats.duration(41.23), "41.2 s"),
        (formats.duration(99.96), "1 min 40 s"),
        (formats.duration(192), "3 min 12 s"),
        (formats.duration(3780), "1 h 03 min"),
        (formats.p_value(0.0004), "< 0.001"),
        (formats.p_value(0.0312), "0.031"),
        (formats.phrase("gold_reward"), "gold reward"),
        (formats.phrase("kl"), "KL"),
    ],
)
def test_numbers_read_well(shown, expected):
    """Each kind of number in its form, with a true minus and a dash for what is missing."""
    assert shown == expected


@pytest.mark.parametrize(("largest", "places"), [(0.8, 3), (0.05, 4), (12.3, 1), (340.0, 0), (0.0, 2)])
def test_decimals_show_three_significant_digits(largest, places):
    """A column gets as many decimals as its largest number needs."""
    assert formats.decimals([0.0, -largest, float("nan")]) == places
