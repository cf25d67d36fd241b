"""Receipts, and the keys that they are signed with, in Postgres."""

from __future__ import annotations

from oa_platform.postgres.pool import Postgres
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

    async def receipt_keys(self) -> list[tuple[str, bytes]]:
        """Key ids and public keys, the newest first."""
        async with self._postgres.acquire() as connection:
            rows = await connection.fetch(sql.READ_RECEIPT_KEYS)
        return [(row["key_id"], row["public_key"]) for row in rows]

    async def add_receipt_key(self, key_id: str, public_key: bytes) -> None:
        """Note a key that receipts are signed with from now on."""
        async with self._postgres.acquire() as connection:
            await connection.execute(sql.INSERT_RECEIPT_KEY, key_id, public_key)
