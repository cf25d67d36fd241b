"""One reading of the Authorization header, as strict as its grammar."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oa_base.refusal import Refusal
from oa_platform.auth.bearer import bearer_token


def _reason(header: str | None) -> str:
    with pytest.raises(Refusal) as caught:
        bearer_token(header)
    return caught.value.reason


@pytest.mark.parametrize(
    ("header", "token"),
    [
        ("Bearer abc", "abc"),
        ("bEARER  abc", "abc"),
        ("Bearer eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJ1c3JfMSJ9.c2ln_-", "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJ1c3JfMSJ9.c2ln_-"),
        ("Bearer A0-._~+/==", "A0-._~+/=="),
        ("Bearer Bearer", "Bearer"),
    ],
)
def test_a_scheme_in_any_case_spaces_and_a_token(header: str, token: str) -> None:
    assert bearer_token(header) == token


@pytest.mark.parametrize("header", [None, ""])
def test_no_header_is_no_token(header: str | None) -> None:
    assert _reason(header) == "missing_authorization"


@pytest.mark.parametrize(
    "header",
    [
        " ",
        "abc",
        "Basic abc",
        "Bearer",
        "Bearer ",
        "Bearerabc",
        "Bearer\tabc",
        "Bearer\u00a0abc",
        " Bearer abc",
        "Bearer abc ",
        "Bearer abc\n",
        "Bearer a b",
        "Bearer a=b",
        "Bearer =",
        "Bearer ä",
        "Bearer ١",
        "Bearer a\x00",
        'Bearer "abc"',
        "Bearer token=abc",
        "Bearer abc, Bearer abc",
        "Bearer abc,Bearer abc",
        "Basic YTpi, Bearer abc",
    ],
)
def test_whatever_else_it_says_is_refused(header: str) -> None:
    assert _reason(header) == "invalid_authorization_scheme"


@given(st.text() | st.text().map("Bearer {}".format) | st.from_regex(r"\ABearer [a-z._=-]*\Z"))
def test_a_token_is_all_that_follows_the_scheme(header: str) -> None:
    with suppress(Refusal):
        token = bearer_token(header)
        assert header[: len("bearer ")].lower() == "bearer "
        assert header[len("bearer ") :].lstrip(" ") == token
