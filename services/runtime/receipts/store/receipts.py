"""Receipts, and the keys that they are signed with, in Postgres."""

from __future__ import annotations

import asyncpg

from oa_platform.postgres.pool import Postgres
from oa_runlog.proof.keys import Endorsement, ReceiptKey
from oa_runlog.proof.receipt import SignedReceipt
from services.runtime.receipts.store import sql


class PostgresReceipts:
    """Reads receipts, outside of the sequencers' transactions, which store them."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def receipt(self, run_id: str) -> SignedReceipt | None:
        """The receipt of a run."""
        async with self._postgres.acquire() as connection:
            row = await connection.fetchrow(sql.READ_RECEIPT, run_id)
        return None if row is None else SignedReceipt(**dict(row))

    async def receipt_keys(self) -> list[ReceiptKey]:
        """All keys that receipts were ever signed with, the newest first."""
        async with self._postgres.acquire() as connection:
            rows = await connection.fetch(sql.READ_RECEIPT_KEYS)
        return [ReceiptKey(row["public_key"], _endorsement(row)) for row in rows]

    async def add_receipt_key(self, key: ReceiptKey) -> bool:
        """Note a key that receipts are signed with from now on, and its endorsement. An endorsement that is there
        stays. Returns False, and notes nothing, if the endorsement is that of a key that never signed here."""
        endorsement = key.endorsement
        async with self._postgres.acquire() as connection, connection.transaction():
            if endorsement and not await connection.fetchval(sql.HAS_RECEIPT_KEY, endorsement.by):
                return False
            await connection.execute(sql.INSERT_RECEIPT_KEY, key.key_id, key.public_key)
            if endorsement:
                await connection.execute(sql.INSERT_ENDORSEMENT, key.key_id, endorsement.by, endorsement.signature)
        return True


def _endorsement(row: asyncpg.Record) -> Endorsement | None:
    by = row["endorsed_by"]
    return Endorsement(by, row["signature"]) if by else None
