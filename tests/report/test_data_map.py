import xml.etree.ElementTree as ET

import numpy as np
import pytest

from modicum.errors import DataError
from modicum.report.data_map import SHOWN, data_map, map_section
from modicum.valuation import cartography


def coordinates(n=200, epochs=6):
    q = np.random.default_rng(0).random((epochs, n))
    confidence, variability, correctness = cartography(q, q > 0.5)
    return confidence, variability, correctness / epochs


def test_every_sample_is_drawn_once_in_the_color_of_its_correctness():
    confidence, variability, share = coordinates()
    figure = data_map(confidence, variability, share, marked=[3, 5])
    root = ET.fromstring(figure)
    dots = {p.get("stroke"): p.get("d").count("M") for p in root.iter("path") if p.get("class") == "dots"}
    expected = {"var(--s8)": (share < 0.2).sum(), "var(--s3)": ((share >= 0.2) & (share < 0.8)).sum()}
    assert dots == expected | {"var(--s0)": (share >= 0.8).sum()}
    assert len(list(root.iter("circle"))) == 2
    assert "200 samples: " in root.find("svg").get("aria-label")


def test_places():
    root = ET.fromstring(data_map(np.array([1.0, 0.5]), np.array([0.0, 0.5]), np.array([1.0, 0.5])))
    dots = {p.get("stroke"): p.get("d") for p in root.iter("path") if p.get("class") == "dots"}
    assert dots == {"var(--s0)": "M58.0,12.0h0", "var(--s3)": "M622.0,183.0h0"}


def test_many_samples_are_drawn_in_part_with_those_that_are_marked():
    n = SHOWN + 500
    confidence, variability = np.linspace(0, 1, n), np.zeros(n)
    marked = range(20)
    figure = data_map(confidence, variability, np.zeros(n), marked)
    drawn = sum(p.get("d").count("M") for p in ET.fromstring(figure).iter("path") if p.get("class") == "dots")
    assert SHOWN <= drawn <= SHOWN + 20
    assert f"{drawn:,} of them, drawn at random" in figure.replace("\u202f", ",")
    assert figure == data_map(confidence, variability, np.zeros(n), marked)
    assert len(figure) < 100_000


@pytest.mark.parametrize(
    "change, text",
    [
        ({"variability": np.zeros(3)}, r"variability has shape \(3,\); expected \(200,\)"),
        ({"confidence": np.full(200, 1.5)}, r"confidence has numbers outside \[0, 1\]"),
        ({"variability": np.full(200, np.nan)}, r"variability has numbers outside \[0, 0.5\] or that are not numbers"),
        ({"correctness": np.full(200, 7.0)}, r"correctness has numbers outside \[0, 1\]"),
    ],
)
def test_errors_name_the_argument(change, text):
    given = dict(zip(("confidence", "variability", "correctness"), coordinates()))
    with pytest.raises(DataError, match=text):
        data_map(**{**given, **change})


def test_a_section_where_the_numbers_are_there():
    names = ("confidence", "variability", "correctness")
    assert map_section({}) == map_section({"confidence": np.ones(3)}) == ""
    text = map_section(dict(zip(names, coordinates())), marked=[1])
    assert text.startswith('<section id="map"')
    assert "<circle" in text
