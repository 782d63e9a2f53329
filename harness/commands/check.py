"""`harness check`: hold methods to the conformance suite."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from harness.errors import RequestError
from harness.registry import found, source_files

if TYPE_CHECKING:
    from harness.conformance.findings import Report

WIDTH = 100
"""Longest line; a narrower terminal gets shorter ones."""

FEW = 6
"""Checks that a line still names one by one."""


def check(args: Namespace) -> int:
    """Print the findings about each method. Returns 1 where a check failed.

    Raises:
        RequestError: there is no method of a name, no file of a path, or several of one name.
    """
    names = _named(args.method)
    # Imported when it is known that there is work: a mistyped name is answered at once.
    import torch

    from harness.conformance.suite import check_method

    torch.set_num_threads(1)  # matrices this small are slower on two
    reports = []
    for name in names:
        reports.append(check_method(name))
        if not args.json:
            print(told(reports[-1]))
            sys.stdout.flush()
    failed = [report.name for report in reports if report.failed]
    if args.json:
        print(json.dumps({"methods": [as_dict(report) for report in reports]}, indent=1))
    elif len(reports) > 1:
        rest = f"; not: {', '.join(failed)}" if failed else ""
        print(f"\n{len(reports) - len(failed)} of {len(reports)} methods keep all laws{rest}")
    return 1 if failed else 0


def told(report: Report) -> str:
    """One line where all is well; else every failure in full, and what was skipped and why."""
    counts = [f"{len(report.passed)} checks passed"]
    counts += [f"{len(report.failed)} FAILED"] if report.failed else []
    counts += [f"{len(report.skipped)} skipped"] if report.skipped else []
    lines = [f"{report.name:<14}  {', '.join(counts)}  {report.seconds:.1f} s"]
    for finding in report.failed:
        lines += ["", f"  FAILED  {finding.check}", *_told("trap:    ", finding.trap)]
        lines += [*_told("expected:", finding.expected), *_told("came:    ", finding.came)]
    if report.failed and report.skipped:
        reasons: dict[str, list[str]] = {}
        for finding in report.skipped:
            reasons.setdefault(finding.came, []).append(finding.check)
        lines += ["", "  skipped"]
        for reason, checks in reasons.items():
            which = ", ".join(checks) if len(checks) <= FEW else f"{len(checks)} checks"
            lines.append(f"    {which}: {reason}")
    return "\n".join(lines) + ("\n" if report.failed else "")


def as_dict(report: Report) -> dict[str, Any]:
    """A report for a machine; every finding, in the order of the checks."""
    return {
        "name": report.name,
        "status": "failed" if report.failed else "passed",
        "seconds": round(report.seconds, 3),
        "findings": [
            {**asdict(finding), "seconds": round(finding.seconds, 3)} for finding in report.findings
        ],
    }


def _named(asked: Sequence[str]) -> list[str]:
    """The methods that are meant, each once; `all` is every one that is built in or installed."""
    plugins = found("methods")
    names: list[str] = []
    for name in asked:
        if name == "all":
            names += plugins
            continue
        try:
            source_files(name, "methods")
        except RequestError:
            # One whose module is missing exists all the same: that is a finding about it.
            if name not in plugins or plugins[name].rivals:
                raise
        names.append(name)
    return list(dict.fromkeys(names))


def _told(label: str, text: str) -> list[str]:
    indent = " " * 4
    width = min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns)
    return textwrap.wrap(
        text, width, initial_indent=f"{indent}{label} ", subsequent_indent=indent + " " * 10,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
