"""The page of a comparison: one self-contained HTML file that needs no network."""

from modicum.report.content import (
    ClassCounts,
    DataSummary,
    Gallery,
    Item,
    KeepRate,
    Recommendation,
    ReportContent,
    Row,
    ScoreSummary,
)
from modicum.report.page import page
from modicum.report.pictures import thumbnail

__all__ = [
    "ClassCounts",
    "DataSummary",
    "Gallery",
    "Item",
    "KeepRate",
    "Recommendation",
    "ReportContent",
    "Row",
    "ScoreSummary",
    "page",
    "thumbnail",
]
