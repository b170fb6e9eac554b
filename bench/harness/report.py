"""Tables and verdicts on standard output."""

import os
import platform


def heading(text):
    """Names the benchmark, the machine, and what else runs on it."""
    busy = os.getloadavg()[0]
    print(f"\n## {text}\n")
    print(f"{os.cpu_count()} CPUs, {platform.system()} {platform.release()}, load before the run {busy:.1f}\n", flush=True)


def table(header, rows):
    """Prints a Markdown table; numbers to the right."""
    cells = [header, *[[str(cell) for cell in row] for row in rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]

    def show(row):
        first, *rest = [cell.ljust(width) if index == 0 else cell.rjust(width) for index, (cell, width) in enumerate(zip(row, widths))]
        print("| " + " | ".join([first, *rest]) + " |")

    show(cells[0])
    print("|" + "|".join("-" * (width + 2) if index == 0 else "-" * (width + 1) + ":" for index, width in enumerate(widths)) + "|")
    for row in cells[1:]:
        show(row)
    print(flush=True)


def verdict(name, value, limit, unit):
    """Says whether a number keeps its limit."""
    kept = "PASS" if value <= limit else "OVER"
    print(f"{kept}: {name} {value:.3g} {unit}, limit {limit:g} {unit}", flush=True)


def ratio(ours, theirs):
    """A ratio as text."""
    return f"{ours / theirs:.2f}x"
