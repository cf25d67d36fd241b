"""Planted defects in the ordinary suite: all can still be planted, and a handful is caught."""

import pytest

from oa_khala.feed import Feed
from tests.mutations.catalogue import MUTATIONS, QUICK
from tests.mutations.hunt import hunt
from tests.mutations.mutation import Edit, Mutation

ENOUGH = range(1_000)


@pytest.mark.parametrize("mutation", MUTATIONS.values(), ids=lambda mutation: mutation.name)
def test_each_can_be_planted_and_taken_away(mutation: Mutation) -> None:
    with mutation.applied():
        pass


@pytest.mark.parametrize("name", QUICK)
def test_the_simulation_bites(name: str) -> None:
    assert hunt(MUTATIONS[name], ENOUGH).by == "simulation"


def test_the_tests_of_the_room_are_asked_when_the_simulation_finds_nothing() -> None:
    caught = hunt(MUTATIONS["cursor_of_another_epoch"], range(0))
    assert "test_cursors" in caught.by
    assert "test_cursors.py::" in caught.why


def test_a_mutation_that_nobody_notices_survives() -> None:
    harmless = Mutation("harmless", "nothing", (Edit(Feed.offer, "if self.parked:", "if len(self.parked):"),))
    assert hunt(harmless, range(2)).by == ""


def test_a_mutation_whose_source_has_changed_says_so() -> None:
    lost = Mutation("lost", "nothing", (Edit(Feed.offer, "what is not there", ""),))
    with pytest.raises(ValueError, match=r"Feed\.offer .* 0 times; adapt the mutation"), lost.applied():
        pass
