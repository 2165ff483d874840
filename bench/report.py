"""The figures as people read them: tables in the terminal, and in docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from figures import Figure, Verdict
from run import Row


def cells(figure: Figure, row: Row) -> list[str]:
    """A row's values as text, one per column."""
    written = [
        column.form.format(row.values[column.key] * column.scale) if column.key in row.values else "–"
        for column in figure.columns
    ]
    return [row.case, row.peer, *written]


def headings(figure: Figure) -> list[str]:
    return ["", "", *(column.heading for column in figure.columns)]


def verdict_line(verdict: Verdict) -> str:
    """`1.12, at most 1.30: met`, after what it is about."""
    bound = "at least" if verdict.at_least else "at most"
    said = "met" if verdict.met else "NOT MET"
    return f"{verdict.sentence} {verdict.value:.2f}, {bound} {verdict.bound:.2f}: {said}"


def show(console: Console, figure: Figure, rows: Sequence[Row]) -> None:
    """Print a figure's table, its targets, and what went wrong."""
    console.print(f"[bold]{figure.title}[/]: {figure.target}", soft_wrap=True)
    table = Table()
    for number, heading in enumerate(headings(figure)):
        table.add_column(heading, justify="left" if number < 2 else "right", no_wrap=number < 2)
    before = ""
    for row in rows:
        written = cells(figure, row)
        if row.case != before:
            table.add_section()
            before = row.case
        else:
            written[0] = ""
        table.add_row(*written, style="bold" if row.peer == "lazycloud" else None)
    console.print(table)
    for verdict in figure.judge(rows):
        console.print(("[green]✓[/] " if verdict.met else "[red]✗[/] ") + verdict_line(verdict))
    for row in rows:
        if row.trouble:
            console.print(f"[red]{row.case}, {row.peer}: {row.trouble}[/]")
    console.print()


def as_json(machine: Mapping[str, str], results: Iterable[tuple[Figure, list[Row]]]) -> dict[str, Any]:
    """All of a run, for programs. Values are in seconds, bytes and plain ratios."""
    figures = {
        figure.name: {
            "rows": [asdict(row) for row in rows],
            "targets": [asdict(each) | {"met": each.met} for each in figure.judge(rows)],
        }
        for figure, rows in results
    }
    return {"machine": dict(machine), "figures": figures}


def write_markdown(
    page: Path,
    machine: Mapping[str, str],
    options: str,
    results: Iterable[tuple[Figure, list[Row]]],
    command: str,
) -> None:
    """Put each figure between its two marks in the page; other figures' stay as they were."""
    text = page.read_text()
    about = "; ".join(f"{name} {said}" for name, said in machine.items())
    for figure, rows in results:
        made = f"Made by `python {command} {figure.name} {options}` on: {about}."
        block = "\n".join([*_markdown_table(figure, rows), "", *_markdown_verdicts(figure, rows), "", made])
        begin, end = f"<!-- figure {figure.name} -->", f"<!-- end {figure.name} -->"
        before, found, rest = text.partition(begin)
        if found:
            text = f"{before}{begin}\n{block}\n{end}{rest.partition(end)[2]}"
    page.write_text(text)


def _markdown_table(figure: Figure, rows: Sequence[Row]) -> list[str]:
    lines = ["| " + " | ".join(headings(figure)) + " |"]
    lines.append("| " + " | ".join(["---", "---", *("---:" for _ in figure.columns)]) + " |")
    return lines + ["| " + " | ".join(cells(figure, row)) + " |" for row in rows]


def _markdown_verdicts(figure: Figure, rows: Sequence[Row]) -> list[str]:
    return [f"- {verdict_line(verdict)}" for verdict in figure.judge(rows)] + [
        f"- {row.case}, {row.peer}: {row.trouble}" for row in rows if row.trouble
    ]
