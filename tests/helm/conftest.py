import pytest

from helm.tools.helm import HELM, HELM_3


@pytest.fixture(scope="session", autouse=True)
def _helm_programs() -> None:
    """Have both helm programs, building them if need be: no test is skipped for want of them."""
    for each in (HELM, HELM_3):
        each.install()
