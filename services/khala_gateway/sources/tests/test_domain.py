"""Whether a source delivers, on times that the test gives."""

from services.khala_gateway.sources.domain import Delivery
from services.khala_gateway.sources.limits import SourceLimits

LIMITS = SourceLimits(check_ms=5_000, gone_ms=10_000)


def test_before_the_first_check_of_a_stream_its_answers_count() -> None:
    delivery = Delivery(LIMITS, 0.0)
    assert delivery.to_ask
    delivery.asked(False, 1.0)
    assert delivery.stopped(1.0)
    assert not delivery.gone(10.0)
    assert delivery.gone(10.1)
    delivery.asked(True, 11.0)
    assert not delivery.stopped(11.0)
    assert not delivery.gone(21.0)


def test_after_it_the_checks_alone_count() -> None:
    delivery = Delivery(LIMITS, 0.0)
    delivery.checked(1, 1.0)
    assert not delivery.to_ask
    assert not delivery.stopped(6.0)
    assert delivery.stopped(6.1)
    assert delivery.gone(11.1)
    delivery.checked(2, 12.0)
    assert not delivery.stopped(12.0)
    assert not delivery.gone(22.0)


def test_the_same_number_again_shows_nothing() -> None:
    delivery = Delivery(LIMITS, 0.0)
    delivery.checked(7, 1.0)
    delivery.checked(7, 6.0)
    assert delivery.stopped(6.1)
    delivery.checked(3, 7.0)  # of a database that was restored
    assert not delivery.stopped(7.0)


def test_another_stream_has_to_show_it_anew() -> None:
    delivery = Delivery(LIMITS, 0.0)
    delivery.checked(7, 1.0)
    delivery.began()
    assert delivery.to_ask
    assert not delivery.stopped(9.0)
    assert delivery.gone(11.1), "that it began is no sign of life"
    delivery.checked(7, 12.0)
    assert not delivery.gone(12.0)
