"""Tables of a comparison of methods: as strings, in Markdown and in LaTeX."""

from collections.abc import Iterator
from dataclasses import dataclass

from lamina.evaluation.statistics.comparison import Comparison, Method, Pair
from lamina.evaluation.statistics.intervals import Interval

_SMALLEST_P = 0.0001
_LATEX = {c: rf"\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "−": "$-$",
    "–": "--",
    "±": r"$\pm$",
    "<": "$<$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
}


@dataclass(frozen=True)
class Sheet:
    """One table of a comparison."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    names: int
    """Columns at the left that hold words; the others hold figures."""
    bold: tuple[bool, ...]
    """Rows that stand out."""


def heading(found: Comparison) -> str:
    """Return what is compared, on whom, in one line."""
    subject = found.subject
    unit = f", {subject.unit}" if subject.unit else ""
    arrow = "↑ higher is better" if subject.higher_is_better else "↓ lower is better"
    patients, cases = len(subject.patients), subject.num_cases
    whom = f"{patients} patient{'s' * (patients != 1)}"
    scans = f" ({cases} scans, averaged first)" if cases != patients else ""
    return f"{subject.measure}{unit} ({arrow}), {whom}{scans}"


def method_sheet(found: Comparison) -> Sheet:
    """Return the table of methods, the best first."""
    seeds = any(method.seeds for method in found.methods)
    header = (
        *("Method", "Mean", "95 % interval", "Rank", "First in", "95 % of ranks"),
        *("Mean rank",) * bool(found.friedman),
        *("SD of seeds",) * seeds,
    )
    rows = []
    for place, method in enumerate(found.methods):
        row = (method.name, *_method_cells(found, method))
        row += (f"{found.friedman.mean_ranks[place]:.2f}",) if found.friedman else ()
        rows.append(row + (_seeds(found, method),) * seeds)
    best = tuple(method.stability.rank == 1 for method in found.methods)
    return Sheet("Methods", header, tuple(rows), 1, best)


def pair_sheet(found: Comparison) -> Sheet:
    """Return the table of pairs; those that differ significantly stand out."""
    header = ("Method", "minus", "Difference", "95 % interval", "+/=/−", "p (Holm)", "Effect")
    rows = tuple((pair.first, pair.second, *_pair_cells(found, pair)) for pair in found.pairs)
    return Sheet("Pairs", header, rows, 2, tuple(pair.significant for pair in found.pairs))


def legend(found: Comparison) -> Iterator[str]:
    """Yield what stands in the columns, and the test over all methods."""
    if found.friedman:
        yield (
            f"Friedman: p {p_value(found.friedman.p, '= ')}; mean ranks that differ by more than "
            f"{found.friedman.critical_difference:.2f} differ significantly (Nemenyi, 5 %)."
        )
    yield (
        "First in, 95 % of ranks: when patients are drawn again. +/=/−: patients on whom the "
        "first method is better, equal, worse. p: Wilcoxon signed-rank, Holm-corrected. "
        "Effect: rank-biserial, −1 to 1."
    )


def p_value(p: float, equals: str = "") -> str:
    """Return a p-value as papers print it."""
    return f"< {_SMALLEST_P}" if p < _SMALLEST_P else f"{equals}{p:.4f}"


def percent(share: float) -> str:
    """Return a share as a whole percentage; only none at all is 0 %, and all of it 100 %."""
    if 0 < share < 0.005:
        return "<1 %"
    return ">99 %" if 0.995 <= share < 1 else f"{100 * share:.0f} %"


def difference(found: Comparison, value: float) -> str:
    """Return a difference of means with its sign."""
    return _signed(value, _decimals(found) + 1)


def markdown(found: Comparison) -> str:
    """Return heading, tables, legend and remarks for a Markdown page."""
    parts = [f"# {_cell(heading(found))}"]
    for sheet in (method_sheet(found), pair_sheet(found)):
        rule = ["---"] * sheet.names + ["---:"] * (len(sheet.header) - sheet.names)
        lines = [sheet.header, rule]
        for row, bold in zip(sheet.rows, sheet.bold, strict=True):
            lines.append([f"**{_cell(c)}**" if bold and c else _cell(c) for c in row])
        table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        parts += [f"## {sheet.title}", table]
    parts += [" ".join(legend(found))]
    told = [f"- {_cell(line)}" for line in (*found.subject.remarks, *found.cautions)]
    if told:
        parts += ["## Read this first", "\n".join(told)]
    return "\n\n".join(parts) + "\n"


def latex(found: Comparison) -> str:
    """Return both tables for a paper that loads ``booktabs``."""
    captions = (f"{heading(found)}.", f"Pairs of methods. {heading(found)}.")
    sheets = (method_sheet(found), pair_sheet(found))
    tables = (_latex_table(*pair) for pair in zip(sheets, captions, strict=True))
    notes = (*legend(found), *found.subject.remarks, *found.cautions)
    return "\n\n".join(["\n".join(f"% {' '.join(note.split())}" for note in notes), *tables]) + "\n"


def _latex_table(sheet: Sheet, caption: str) -> str:
    lines = [
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{_escaped(caption)}}}",
        rf"  \begin{{tabular}}{{{'l' * sheet.names}{'r' * (len(sheet.header) - sheet.names)}}}",
        r"    \toprule",
        f"    {' & '.join(map(_escaped, sheet.header))} \\\\",
        r"    \midrule",
    ]
    for row, bold in zip(sheet.rows, sheet.bold, strict=True):
        cells = [rf"\textbf{{{_escaped(c)}}}" if bold and c else _escaped(c) for c in row]
        lines.append(f"    {' & '.join(cells)} \\\\")
    return "\n".join([*lines, r"    \bottomrule", r"  \end{tabular}", r"\end{table}"])


def _method_cells(found: Comparison, method: Method) -> tuple[str, ...]:
    digits, stable = _decimals(found), method.stability
    return (
        f"{method.interval.mean:.{digits}f}",
        _interval(method.interval, digits, signed=False),
        str(stable.rank),
        percent(stable.shares[0]),
        f"{stable.low}" if stable.low == stable.high else f"{stable.low}–{stable.high}",
    )


def _pair_cells(found: Comparison, pair: Pair) -> tuple[str, ...]:
    return (
        difference(found, pair.difference.mean),
        _interval(pair.difference, _decimals(found) + 1, signed=True),
        f"{pair.wins}/{pair.ties}/{pair.losses}",
        p_value(pair.holm_p),
        _signed(pair.effect, 2),
    )


def _seeds(found: Comparison, method: Method) -> str:
    if not method.seeds:
        return "–"
    return f"{method.seeds.between:.{_decimals(found) + 1}f} ({len(method.seeds.means)})"


def _interval(interval: Interval, digits: int, *, signed: bool) -> str:
    if interval.missing:
        return "–"
    ends = (interval.low, interval.high)
    if not signed:
        return " to ".join(f"{end:.{digits}f}" for end in ends)
    return " to ".join(_signed(end, digits) for end in ends)


def _signed(value: float, digits: int) -> str:
    text = f"{value:+.{digits}f}"
    return text.lstrip("+-") if float(text) == 0 else text.replace("-", "−")


def _decimals(found: Comparison) -> int:
    return 2 if found.subject.unit else 3


def _cell(text: str) -> str:
    return "".join(rf"\{c}" if c in "\\|*_`<[" else c for c in " ".join(text.split()))


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(c, c) for c in " ".join(text.split()))
