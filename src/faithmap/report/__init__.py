"""The answer of a run as one self-contained page (`write_report`), and its parts for notebooks."""

from faithmap.report.notebook import run_html
from faithmap.report.page import flipbook_html, report_html, write_report, write_several
from faithmap.report.paper import Paper, paper_of
from faithmap.report.several import BETWEEN, Several, ranks_part, values_part
from faithmap.report.templates import Html

__all__ = [
    "BETWEEN",
    "Html",
    "Paper",
    "Several",
    "flipbook_html",
    "paper_of",
    "ranks_part",
    "report_html",
    "run_html",
    "values_part",
    "write_report",
    "write_several",
]
