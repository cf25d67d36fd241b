"""Hypothesis strategies for frames."""

from hypothesis import strategies as st

from oa_khala import frames

seqs = st.integers(0, 2**63)
positive = st.integers(1, 2**32 - 1)
epochs = st.text("abcdef0123456789", min_size=1, max_size=32)
topics = st.sampled_from(["run:run_01J9ZQ6T5W3M8K2N4P7R1S0V6X:events", "user:usr_01J9ZQ6T5W3M8K2N4P7R1S0V6X:runs"])
chains = st.just(b"") | st.binary(min_size=32, max_size=32)
times = st.integers(0, 4_102_444_800_000)
text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=40)

cursors = st.none() | st.builds(frames.Cursor, epochs, seqs, chains)

client_frames = st.one_of(
    st.builds(frames.Hello, st.just("") | text, text, text, positive, positive),
    st.builds(
        frames.Subscribe,
        st.lists(
            st.tuples(topics, st.none() | st.builds(frames.Cursor, epochs, seqs, chains)), min_size=1, max_size=8
        ).map(tuple),
    ),
    st.just(frames.Subscribe((("run:a", None), ("run:b", frames.Cursor("e", 1))), ("run:b",))),
    st.builds(frames.Unsubscribe, st.lists(topics, min_size=1, max_size=8).map(tuple)),
    st.builds(frames.RefreshToken, text),
    st.builds(frames.Ping, seqs),
)
states = st.builds(frames.TopicState, epochs, seqs, seqs, st.booleans())
server_frames = st.one_of(
    st.builds(frames.Welcome, text, positive, positive, positive, positive, times, times),
    st.builds(frames.Subscribed, topics, epochs, seqs, seqs, st.sampled_from(frames.Plan), seqs, chains),
    st.builds(frames.Event, topics, st.integers(1, 2**63), st.binary(max_size=64), positive),
    st.builds(frames.Snapshot, topics, seqs, st.binary(max_size=64), positive, positive, positive),
    st.builds(frames.CaughtUp, topics, seqs),
    st.builds(
        frames.Heartbeat,
        st.lists(st.builds(frames.TopicHead, topics, seqs, epochs, st.booleans()), max_size=4).map(tuple),
        times,
        seqs,
    ),
    st.builds(
        frames.ErrorFrame,
        st.just("") | topics,
        st.sampled_from(["epoch_mismatch", "invalid_token", "a_reason_of_tomorrow"]),
        text,
        st.just("") | text,
        st.integers(0, 2**32 - 1),
        st.none() | states,
    ),
    st.builds(
        frames.ErrorFrame,
        topics,
        st.just("epoch_mismatch"),
        text,
        stale=states,
        chain=chains,
    ),
    st.builds(frames.Draining, st.integers(0, 2**32 - 1)),
)
