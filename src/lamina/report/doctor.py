"""One page about the health of a dataset: findings, pictures of the cases, what was checked.

The page stands alone: styles and pictures are within it, nothing is fetched.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lamina.data.case import Case
from lamina.data.cohort import Cohort
from lamina.data.doctor import LEAVE_OUT, SEVERITIES, Finding, Severity
from lamina.data.doctor.diagnosis import CHECKS
from lamina.data.doctor.mend import REPAIRS, Change
from lamina.files import write_text
from lamina.report.page import render
from lamina.report.thumbnails import Picture, draw_case

MAX_PICTURED = 60
"""Cases that are drawn, the gravest first; a page of hundreds is not looked at."""

_SAMPLES = 8
"""Cases of the whole set that are shown, whatever was found."""

_CHANNEL_CHECKS = {"channels", "channel_order", "constant", "not_finite", "intensity"}


@dataclass(frozen=True)
class Chapter:
    """One case on the page."""

    name: str
    patient: str
    severity: Severity
    findings: tuple[Finding, ...]
    pictures: tuple[Picture, ...]
    legend: Mapping[str, str]
    """Structure shown -> its colour for CSS."""


def save_report(
    path: Path,
    cohort: Cohort,
    cases: Mapping[str, Case],
    findings: Sequence[Finding],
    changes: Sequence[Change],
    *,
    progress: Callable[[float, int, str], None] | None = None,
) -> None:
    """Write the page.

    Args:
        path: HTML file to write; its folder is made.
        cohort: The dataset.
        cases: The cases that findings name, those of the test folder among them.
        findings: What was found.
        changes: What a mended copy differs in.
        progress: Called after each case that is drawn.

    Raises:
        FileError: The page cannot be written.
    """
    page = render(
        "doctor.html",
        cohort=cohort,
        num_patients=len({case.group for case in cohort.cases}),
        counts={s: sum(f.severity == s for f in findings) for s in SEVERITIES},
        verdict=_verdict(cohort, findings, changes),
        general=[finding for finding in findings if not finding.case],
        samples=list(_samples(cohort)),
        chapters=list(_chapters(cohort, cases, findings, progress)),
        changes=changes,
        repairs=REPAIRS,
        checks=[(name, text, _tally(name, findings)) for name, text in CHECKS.items()],
    )
    write_text(path, page)


def _verdict(cohort: Cohort, findings: Sequence[Finding], changes: Sequence[Change]) -> str:
    own = {case.case_id for case in cohort.cases}
    broken = own & {f.case for f in findings if f.severity == "error"}
    if not broken:
        odd = len(own & {f.case for f in findings if f.severity == "warning"})
        return "Every case can be used" + (f"; {odd} of {len(own)} deserve a look." if odd else ".")
    lost = {change.case for change in changes if change.repair == LEAVE_OUT}
    mended = f" A mended copy keeps {len(broken - lost)} of them." if broken - lost else ""
    return f"Not to be used as they are: {len(broken)} of {len(own)} cases.{mended}"


def _tally(check: str, findings: Sequence[Finding]) -> list[tuple[str, int]]:
    found = Counter(finding.severity for finding in findings if finding.check == check)
    return [(severity, found[severity]) for severity in SEVERITIES if found[severity]]


def _samples(cohort: Cohort) -> Iterator[Picture]:
    """Draw one plane of a few cases, evenly spread over the set."""
    count = min(_SAMPLES, len(cohort.cases))
    for number in range(count):
        case = cohort.cases[number * len(cohort.cases) // count]
        pictures, _ = draw_case(case, cohort)
        if pictures:
            yield replace(pictures[0], caption=case.case_id)


def _chapters(
    cohort: Cohort,
    cases: Mapping[str, Case],
    findings: Sequence[Finding],
    progress: Callable[[float, int, str], None] | None,
) -> Iterator[Chapter]:
    about: dict[str, list[Finding]] = {}
    for finding in sorted(findings, key=lambda f: SEVERITIES.index(f.severity)):
        if finding.case:
            about.setdefault(finding.case, []).append(finding)
    drawn = min(len(about), MAX_PICTURED)
    for number, (name, found) in enumerate(about.items(), start=1):
        pictures: list[Picture] = []
        legend: dict[str, str] = {}
        if number <= drawn:
            channels = bool(_CHANNEL_CHECKS & {finding.check for finding in found})
            pictures, legend = draw_case(cases[name], cohort, all_channels=channels)
            others = dict.fromkeys(f.other for f in found if f.other in cases)
            for other in list(others)[:1]:
                beside, _ = draw_case(cases[other], cohort)
                pictures += [replace(p, caption=f"{other}, {p.caption}") for p in beside[:1]]
            if progress:
                progress(number, drawn, "Drawing")
        yield Chapter(
            name, cases[name].group, found[0].severity, tuple(found), tuple(pictures), legend
        )
