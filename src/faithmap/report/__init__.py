"""The answer of a run as one self-contained page (`write_report`), and its parts for notebooks."""

from faithmap.report.extras import study_of
from faithmap.report.notebook import run_html
from faithmap.report.page import flipbook_html, report_html, write_report
from faithmap.report.paper import Paper, paper_of
from faithmap.report.templates import Html

__all__ = ["Html", "Paper", "flipbook_html", "paper_of", "report_html", "run_html", "study_of", "write_report"]
