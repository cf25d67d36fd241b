"""Whether a source delivers, on times that the test gives."""

from services.khala_gateway.sources.domain import FrameRoute, Liveness
from services.khala_gateway.sources.limits import SourceLimits

LIMITS = SourceLimits(check_ms=5_000, gone_ms=10_000)


def test_before_the_first_check_of_a_stream_its_answers_count() -> None:
    liveness = Liveness(LIMITS, 0.0)
    assert liveness.to_ask
    liveness.asked(False, 1.0)
    assert liveness.stopped(1.0)
    assert not liveness.gone(10.0)
    assert liveness.gone(10.1)
    liveness.asked(True, 11.0)
    assert not liveness.stopped(11.0)
    assert not liveness.gone(21.0)


def test_after_it_the_checks_alone_count() -> None:
    liveness = Liveness(LIMITS, 0.0)
    liveness.checked(1, 1.0)
    assert not liveness.to_ask
    assert not liveness.stopped(6.0)
    assert liveness.stopped(6.1)
    assert liveness.gone(11.1)
    liveness.checked(2, 12.0)
    assert not liveness.stopped(12.0)
    assert not liveness.gone(22.0)


def test_the_same_number_again_shows_nothing() -> None:
    liveness = Liveness(LIMITS, 0.0)
    liveness.checked(7, 1.0)
    liveness.checked(7, 6.0)
    assert liveness.stopped(6.1)
    liveness.checked(3, 7.0)  # of a database that was restored
    assert not liveness.stopped(7.0)


def test_another_stream_has_to_show_it_anew() -> None:
    liveness = Liveness(LIMITS, 0.0)
    liveness.checked(7, 1.0)
    liveness.began()
    assert liveness.to_ask
    assert not liveness.stopped(9.0)
    assert liveness.gone(11.1), "that it began is no sign of life"
    liveness.checked(7, 12.0)
    assert not liveness.gone(12.0)


def test_frames_are_taken_where_delivery_checks_come_until_they_come_on_the_stream_alone() -> None:
    route = FrameRoute(LIMITS)
    assert not by_subject(route)
    route.came_on_stream(1.0)
    assert not by_subject(route)
    route.came(1, 1.5)
    assert by_subject(route)
    route.came_on_stream(6.5)
    assert by_subject(route)
    route.came(1, 6.6)  # a repetition of the last one shows nothing
    route.came_on_stream(6.7)
    assert not by_subject(route)
    route.came(6, 7.0)
    assert by_subject(route)


def test_a_way_that_is_known_to_be_lost_has_to_bring_a_check_anew() -> None:
    route = FrameRoute(LIMITS)
    route.came(1, 1.0)
    route.lost()
    assert not by_subject(route)
    route.came_on_stream(1.1)
    assert not by_subject(route)
    route.came(2, 2.0)
    assert by_subject(route)


def by_subject(route: FrameRoute) -> bool:
    return route.by_subject
