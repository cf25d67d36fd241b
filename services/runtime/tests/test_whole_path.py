"""A run's whole life over real gRPC: created, assigned, appended to, finished, watched, and proved by its receipt."""

from __future__ import annotations

from oa_runlog import wire
from oa_runlog.proof.verify import verify_record
from oa_testing.postgres import Database
from openagents.common.v1 import cursor_pb2
from openagents.runtime.v1 import log_service_pb2, receipt_service_pb2, run_pb2
from openagents.sync.v1 import frame_pb2, topic_service_pb2
from services.runtime.tests.rig import (
    AS_GATEWAY,
    AS_PROJECTOR,
    FakeWorker,
    finish,
    replica,
    runtime_settings,
    somebody,
    text,
)


async def test_a_run_from_its_creation_to_its_receipt(runtime_database: Database) -> None:
    who = somebody()
    async with replica(runtime_settings(runtime_database), who.key) as runtime:
        created = await runtime.create(who, "k", "git", "log")
        assert (created.status, created.latest_seq) == (run_pb2.RUN_STATUS_CREATED, 1)
        assert (created.org_id, created.user_id, created.spec.title) == (who.org_id, who.user_id, "git log")
        run_id = created.run_id

        worker = FakeWorker(runtime, who)
        await worker.attach()
        assigned = (await worker.next("assignment")).assignment
        assert (assigned.run.run_id, assigned.lease_epoch, assigned.run.attempt) == (run_id, 1, 1)
        appended = await worker.append(run_id, 1, "a1", text(b"hello "), text(b"world"))
        assert (appended.first_seq, appended.last_seq, appended.already_appended) == (3, 4, False)
        again = await worker.append(run_id, 1, "a1", text(b"hello "), text(b"world"))
        assert (again.first_seq, again.last_seq, again.already_appended) == (3, 4, True)
        assert (await worker.append(run_id, 1, "a2", finish())).last_seq == 5

        run = await runtime.run(who, run_id)
        assert (run.status, run.latest_seq, run.worker_id) == (run_pb2.RUN_STATUS_SUCCEEDED, 5, "")
        request = receipt_service_pb2.GetReceiptRequest(run_id=run_id)
        receipt = (await runtime.receipts.GetReceipt(request, metadata=who.as_person())).receipt
        keys = await runtime.receipts.ListReceiptKeys(
            receipt_service_pb2.ListReceiptKeysRequest(), metadata=who.as_person()
        )
        pinned = {key.key_id: key.public_key for key in keys.keys}

        topic = run.events_topic
        described = await runtime.topics.DescribeTopic(
            topic_service_pb2.DescribeTopicRequest(topic=topic), metadata=AS_GATEWAY
        )
        assert (described.floor, described.head, described.owner_org_id) == (0, 5, who.org_id)
        replay = topic_service_pb2.ReplayTopicRequest(topic=topic, epoch=described.epoch)
        page = (await runtime.topics.ReplayTopic(replay, metadata=AS_GATEWAY)).page
        frames = [frame_pb2.KhalaFrame.FromString(frame) for frame in page.frames]
        assert [(frame.topic, frame.seq) for frame in frames] == [(topic, seq) for seq in range(1, 6)]
        events = [frame.payload_bytes for frame in frames]
        facts = verify_record(wire.receipt_from_wire(receipt), pinned, events, run_id=run_id)
        assert (facts.count, facts.totals.text_bytes, facts.chain_head) == (5, 11, run.chain_head.hex())
        assert facts.log_epoch == described.epoch

        tail = log_service_pb2.TailLogRequest(after=[cursor_pb2.LogPosition(partition=p) for p in range(16)])
        seen: list[bytes] = []
        async for batch in runtime.log.TailLog(tail, metadata=AS_PROJECTOR):
            seen.extend(batch.events)
            if len(seen) == 5:
                break
        assert seen == events
        worker.call.cancel()
