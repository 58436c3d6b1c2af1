"""What pydicom would quote of headers stays untold in every thread, and is told again after."""

import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from lamina.io.dicom_headers import guarded
from lamina.io.dicom_quiet import unquoted

pydicom = pytest.importorskip("pydicom")

BIRTH = "11.03.1952"


def meet_odd_value():
    """Let pydicom look at a value that it warns of, and quotes."""
    pydicom.DataElement("PatientBirthDate", "DA", BIRTH)


def guarded_file():
    return guarded(Path("slice"))


@pytest.mark.parametrize("first", [unquoted, guarded_file])
@pytest.mark.parametrize("second", [unquoted, guarded_file])
def test_who_leaves_first_switches_nothing_on_under_another(first, second, caplog, recwarn):
    inside, may_go_on = Event(), Event()

    def other():
        with second():
            inside.set()
            assert may_go_on.wait(60)
            meet_odd_value()

    with ThreadPoolExecutor(1) as pool:
        with first():
            job = pool.submit(other)
            assert inside.wait(60)
            meet_odd_value()
        may_go_on.set()
        job.result()
    assert BIRTH not in caplog.text
    assert not recwarn.list
    meet_odd_value()  # no longer inside: pydicom speaks as before
    assert caplog.text.count(BIRTH) == len(recwarn.list) == 1


def test_filters_that_others_keep_meanwhile_silence_nothing_for_good(recwarn):
    package = warnings.catch_warnings()
    with unquoted():
        package.__enter__()
    package.__exit__(None, None, None)
    warnings.warn("heard", stacklevel=1)
    assert [str(one.message) for one in recwarn] == ["heard"]


def test_an_error_inside_ends_the_quiet(caplog, recwarn):
    with pytest.raises(KeyError), unquoted(), unquoted():
        raise KeyError
    meet_odd_value()
    assert BIRTH in caplog.text
    assert len(recwarn.list) == 1
