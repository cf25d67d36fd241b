"""A suite by chance is short, unless the long form is asked for."""

import pytest

from oa_testing.sizes import LONG_FORMS, is_long, size


def test_the_short_form_is_what_runs_until_the_long_one_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(LONG_FORMS, raising=False)
    assert (is_long(), size(short=2, long=30)) == (False, 2)
    monkeypatch.setenv(LONG_FORMS, "")
    assert size(short=2, long=30) == 2
    monkeypatch.setenv(LONG_FORMS, "1")
    assert (is_long(), size(short=2, long=30)) == (True, 30)
