"""Tables of a comparison of methods: as strings, in Markdown and in LaTeX."""

from collections.abc import Iterator, Sequence

from lamina.evaluation.figures import decimals
from lamina.evaluation.statistics.comparison import Comparison, Method, Pair
from lamina.evaluation.statistics.intervals import Interval
from lamina.report.sheets import Sheet, latex_table, markdown_page, signed

_SMALLEST_P = 0.0001


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
    header = ("Pair", "Difference", "95 % interval", "+/=/−", "p (Holm)", "Effect")
    rows = tuple((pair_name(pair), *_pair_cells(found, pair)) for pair in found.pairs)
    return Sheet("Pairs", header, rows, 1, tuple(pair.significant for pair in found.pairs))


def pair_name(pair: Pair) -> str:
    """Return what the difference of a pair is of."""
    return f"{pair.first} − {pair.second}"


def legend(found: Comparison) -> Iterator[str]:
    """Yield what stands in the columns, and the test over all methods."""
    if found.friedman:
        apart = found.friedman.critical_difference
        ranks = (
            "no critical difference of mean ranks (Nemenyi): it takes more patients."
            if apart is None
            else f"mean ranks that differ by more than {apart:.2f} differ significantly "
            "(Nemenyi, 5 %)."
        )
        yield f"Friedman: p {p_value(found.friedman.p, '= ')}; {ranks}"
    yield (
        "First in, 95 % of ranks: when patients are drawn again. +/=/−: patients on whom the "
        "first method is better, equal, worse. p: Wilcoxon signed-rank, Holm-corrected; bold "
        "below 5 %. Effect: rank-biserial, −1 to 1."
    )
    if any(method.seeds for method in found.methods):
        yield (
            "SD of seeds: of the means of a method's trainings (how many). A patient's value is "
            "the mean of all of them."
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
    return signed(value, _decimals(found) + 1)


def markdown(found: Comparison, pictures: Sequence[str] = ()) -> str:
    """Return heading, tables, legend, remarks and pictures for a Markdown page."""
    notes = (*found.subject.remarks, *found.cautions)
    sheets = (method_sheet(found), pair_sheet(found))
    told = " ".join(legend(found))
    page = markdown_page(sheets, told, "What to know", notes, title=heading(found))
    return "\n".join([page, *(f"![{_alt(name)}]({name})\n" for name in pictures)])


def _alt(picture: str) -> str:
    return picture.removesuffix(".png").replace("_", " ").capitalize()


def latex(found: Comparison) -> str:
    """Return both tables for a paper that loads ``booktabs``."""
    captions = (f"{heading(found)}.", f"Pairs of methods. {heading(found)}.")
    sheets = (method_sheet(found), pair_sheet(found))
    tables = (latex_table(*pair) for pair in zip(sheets, captions, strict=True))
    notes = (*legend(found), *found.subject.remarks, *found.cautions)
    return "\n\n".join(["\n".join(f"% {' '.join(note.split())}" for note in notes), *tables]) + "\n"


def _method_cells(found: Comparison, method: Method) -> tuple[str, ...]:
    digits, stable = _decimals(found), method.stability
    return (
        f"{method.interval.mean:.{digits}f}",
        _interval(method.interval, digits, with_sign=False),
        str(stable.rank),
        percent(stable.shares[0]),
        f"{stable.low}" if stable.low == stable.high else f"{stable.low}–{stable.high}",
    )


def _pair_cells(found: Comparison, pair: Pair) -> tuple[str, ...]:
    return (
        difference(found, pair.difference.mean),
        _interval(pair.difference, _decimals(found) + 1, with_sign=True),
        f"{pair.wins}/{pair.ties}/{pair.losses}",
        p_value(pair.holm_p),
        signed(pair.effect, 2),
    )


def _seeds(found: Comparison, method: Method) -> str:
    if not method.seeds:
        return "–"
    return f"{method.seeds.between:.{_decimals(found) + 1}f} ({len(method.seeds.means)})"


def _interval(interval: Interval, digits: int, *, with_sign: bool) -> str:
    if interval.missing:
        return "–"
    ends = (interval.low, interval.high)
    if not with_sign:
        return " to ".join(f"{end:.{digits}f}" for end in ends)
    return " to ".join(signed(end, digits) for end in ends)


def _decimals(found: Comparison) -> int:
    """Return the decimals with which no method's mean lacks digits."""
    unit = found.subject.unit
    return max(decimals(method.interval.mean, unit) for method in found.methods)
