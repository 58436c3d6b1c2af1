"""Whatever is sent, the server answers as it says it does."""

import warnings

import pytest
from served import TOKEN

pytest.importorskip("schemathesis")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, settings
    from schemathesis.specs.openapi.checks import positive_data_acceptance

HEADERS = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def described(listening):
    """The description of a running server."""
    return schemathesis.openapi.from_url(f"{listening}/openapi.json", headers=HEADERS)


def check(operation):
    # What is in a file, no schema can say: most of what comes as one is rightly refused.
    unfit = [positive_data_acceptance] if operation.body else []

    @settings(
        max_examples=4,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def is_as_described(case):
        case.call_and_validate(headers=HEADERS, excluded_checks=unfit, timeout=240)

    is_as_described()


def test_answers_are_as_described(described):
    operations = [found.ok() for found in described.get_all_operations()]
    assert {"/api/jobs", "/metrics", "/monailabel/infer/{model}"} <= {o.path for o in operations}
    for operation in operations:
        check(operation)
