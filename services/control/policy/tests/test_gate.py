"""The gate: whoever has no standing is not let in, whatever the token says."""

from __future__ import annotations

from dataclasses import replace

import pytest

from oa_base.identity import PrincipalKind
from oa_base.refusal import Refusal
from services.control.policy.domain import StandingPrincipal
from services.control.tests.cases import Cases
from services.control.tests.harness import new_id


async def test_a_kind_of_principal_that_no_feature_answers_for_has_no_standing(cases: Cases) -> None:
    person = await cases.principal()
    assert (await cases.gate.standing_now(person)).standing == person.standing
    with pytest.raises(Refusal, match="token_revoked"):
        await cases.gate.standing_now(replace(person, kind=PrincipalKind.WORKER))


async def test_an_account_that_was_never_made_has_no_standing(cases: Cases) -> None:
    for kind, prefix in ((PrincipalKind.USER, "usr"), (PrincipalKind.SERVICE_ACCOUNT, "sva")):
        nobody = StandingPrincipal(kind, new_id(prefix), new_id("org"), session_id=new_id("ses"))
        with pytest.raises(Refusal, match="token_revoked"):
            await cases.gate.standing_now(nobody)
