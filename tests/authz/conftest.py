"""The desk as a fixture."""

import pytest

from tests.authz.desk import Desk


@pytest.fixture
def desk():
    made = Desk()
    yield made
    made.close()


@pytest.fixture
def desk_with():
    made = []

    def make(**changes):
        made.append(Desk(**changes))
        return made[-1]

    yield make
    for one in made:
        one.close()
