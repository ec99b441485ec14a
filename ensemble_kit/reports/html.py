"""Reports as HTML for notebooks, with every text escaped; whole pages are made by `page.py`."""

from __future__ import annotations

from html import escape

from ensemble_kit.reports.report import Report


def report_html(report: Report) -> str:
    """Write any report as HTML; no text in it is taken for markup."""
    head = "".join(_cell("th", text, k) for k, text in enumerate(report.columns))
    rows = "".join("<tr>" + "".join(_cell("td", v, k) for k, v in enumerate(row)) + "</tr>" for row in report.rows)
    return (
        "<div><table><caption style='caption-side: top; text-align: left'>"
        f"{_text(report.title)}</caption><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        + "".join(f"<p>{_text(line)}</p>" for line in report.sentences)
        + "".join(f"<p><strong>Warning:</strong> {_text(str(line))}</p>" for line in report.warnings)
        + "</div>"
    )


def _cell(tag: str, text: str, column: int) -> str:
    return f"<{tag} style='text-align: {'right' if column else 'left'}'>{_text(text)}</{tag}>"


def _text(text: str) -> str:
    """Escape markup, and the dollar signs that a notebook takes for formulas."""
    return escape(str(text)).replace("$", "&#36;")
