"""The comparison that the tests of the page share."""

from __future__ import annotations

import pytest
from report_sample import make_content

from modicum.report import ReportContent


@pytest.fixture(scope="session")
def content() -> ReportContent:
    return make_content()
