"""Findings about many cases at once, so that one oddity is not told hundreds of times."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from lamina.data.doctor import SEVERITIES, Finding, Severity
from lamina.errors import some

MANY = 0.1
"""A finding that more than this share of the cases has is a group, and reported as one."""
NAMED = 3
"""Cases that are named of a group, and up to which number they are reported one by one."""


def whole_set(severity: Severity, check: str, message: str, remedy: str, mend: str = "") -> Finding:
    """Make a finding about the set as a whole."""
    return Finding(
        severity=severity, check=check, case="", file="", message=message, remedy=remedy, mend=mend
    )


def folded(found: Sequence[Finding], total: int) -> Iterator[Finding]:
    """Yield findings one by one, or one about the whole set where they are many.

    Args:
        found: Findings of one kind.
        total: Number of cases that were looked at.
    """
    if len(found) <= max(NAMED, MANY * total):
        yield from found
    else:
        yield _as_one(found, total)


def condensed(findings: Sequence[Finding], total: int) -> list[Finding]:
    """Return findings for a screen: the gravest first, what many cases have as one.

    Args:
        findings: All findings.
        total: Number of cases of the set.
    """
    alike: dict[tuple[str, ...], list[Finding]] = defaultdict(list)
    for number, one in enumerate(findings):
        kind = one.remedy if one.case else f"{number}"
        alike[one.severity, one.check, kind].append(one)
    shown = []
    for group in sorted(alike.values(), key=lambda group: SEVERITIES.index(group[0].severity)):
        few = len({one.case for one in group}) <= NAMED
        shown += group if few else [_as_one(group, total)]
    return shown


def _as_one(found: Sequence[Finding], total: int) -> Finding:
    first, cases = found[0], list(dict.fromkeys(finding.case for finding in found))
    message = (
        f"{len(cases)} of {total} cases ({some(cases, NAMED)}); {first.case}, for one: "
        f"{first.message}"
    )
    return whole_set(first.severity, first.check, message, first.remedy)
