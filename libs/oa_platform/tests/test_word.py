"""Word for a task that looks now and then."""

import asyncio

from oa_platform.tasks.word import Word

NEVER_S = 3600.0


async def test_word_is_heard_once_however_often_it_was_given() -> None:
    word = Word()
    word.give()
    word.give()
    await word.within(NEVER_S)
    waiting = asyncio.create_task(word.within(NEVER_S))
    await asyncio.sleep(0)
    assert not waiting.done()
    word.give()
    await waiting


async def test_a_wait_without_a_limit_hears_word_once() -> None:
    word = Word()
    word.give()
    await word.heard()
    waiting = asyncio.create_task(word.heard())
    await asyncio.sleep(0)
    assert not waiting.done()
    word.give()
    await waiting


async def test_without_word_the_time_ends_the_wait() -> None:
    word = Word()
    await word.within(0)
    await word.within(0)


async def test_a_wait_that_is_given_up_takes_no_word_with_it() -> None:
    word = Word()
    waiting = asyncio.create_task(word.within(NEVER_S))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    word.give()
    await word.within(NEVER_S)
