"""Checks of what label values mean in the set as a whole: as declared, or as the masks show."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from lamina.data.cohort import Cohort
from lamina.data.doctor import Finding
from lamina.data.doctor.facts import Examination
from lamina.data.doctor.groups import whole_set
from lamina.errors import some


def check_declaration(cohort: Cohort, seen: Sequence[Examination]) -> Iterator[Finding]:
    """Report label values that leave gaps, and masks of 255 where nobody declared the values."""
    values = cohort.labels.values
    found_only = all(name == f"label_{value}" for name, value in values.items())
    if found_only and 255 in values.values() and set(values.values()) <= {1, 255}:
        files = sum(1 for one in seen if one.label and 255 in one.label.counts)
        mixed = 1 in values.values()
        yield whole_set(
            "error" if mixed else "note",
            "values",
            f"{files} masks are of 0 and 255"
            + (", the others of 0 and 1: one structure counts as two." if mixed else "."),
            "Write 1 for 255.",
            mend="renumber",
        )
        return
    masks = [one for one in seen if one.label and 255 in one.label.counts]
    masks = [one for one in masks if one.label and one.label.counts.keys() <= {0, 255}]
    if found_only and masks and len(masks) < sum(1 for one in seen if one.label):
        yield whole_set(
            "warning",
            "values",
            f"masks of 0 and 255 among labels of other values: {some([m.case_id for m in masks])}"
            "; 255 counts as one more structure.",
            "Write the values that the others have, or declare 255 in dataset.json.",
        )
    listed = sorted(values.values())
    if listed != list(range(1, len(listed) + 1)):
        yield whole_set(
            "note",
            "values",
            f"the label values leave gaps: {some(listed)}.",
            "None needed here; some other programs want 1, 2, 3 without gaps.",
        )


def check_merged(seen: Sequence[Examination]) -> Iterator[Finding]:
    """Note that pictures have several masks, as they may have been meant to be of structures."""
    merged = [one for one in seen if one.label and one.case.objects and not one.case.series]
    if merged:
        yield whole_set(
            "note",
            "values",
            f"the masks of {len(merged)} pictures were merged: several objects of one structure, "
            f"where they have one value ({some([one.case_id for one in merged])}).",
            "None needed for objects; structures need one mask with a value for each.",
        )


def check_palettes(seen: Sequence[Examination]) -> Iterator[Finding]:
    """Report colours that stand for several label values, and labels that have several colours."""
    meant: dict[str, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
    shown: dict[int, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for one in seen:
        pairs = one.label.colours if one.label else frozenset()
        uses = Counter(colour for _, colour in pairs)
        for value, colour in pairs:
            if uses[colour] == 1:  # else the palette tells no values apart
                meant[colour][value].append(one.case_id)
                shown[value][colour].append(one.case_id)
    several = sorted(colour for colour, values in meant.items() if len(values) > 1)
    if several:
        values = sorted(meant[several[-1]].items())
        told = [f"{value} in {len(ids)} masks ({ids[0]})" for value, ids in values]
        yield whole_set(
            "error",
            "values",
            f"masks whose palettes exchange values: {len(several)} colours stand for several; "
            f"{several[-1]}, for one, is {some(told)}.",
            "The number in the file is the label: give every mask one palette in one order, and a "
            "colour one number.",
        )
        return
    for value, colours in sorted(shown.items()):
        if value and len(colours) > 1:
            drawn = [f"{colour} in {len(ids)} masks ({ids[0]})" for colour, ids in colours.items()]
            yield whole_set(
                "warning",
                "values",
                f"masks show label {value} in {len(colours)} colours: {some(sorted(drawn))}.",
                "Make sure that they mean one structure: the number in the file is the label.",
            )
