"""A run says how long each room took."""

import pytest

from oa_testing.suite.room_times import room_of

pytest_plugins = ["pytester"]


@pytest.mark.parametrize(
    ("path", "room"),
    [
        ("libs/oa_khala/tests/test_feed.py", "libs/oa_khala"),
        ("services/runtime/log/tests/test_tail.py", "services/runtime"),
        ("tests/e2e/test_clocks.py", "tests/e2e"),
        ("benchmarks/tests/test_readers.py", "benchmarks"),
    ],
)
def test_a_room_is_the_folder_of_a_library_a_service_or_a_kind_of_test(path: str, room: str) -> None:
    assert room_of(path) == room


def test_a_run_ends_with_the_seconds_of_each_room(pytester: pytest.Pytester) -> None:
    for room in ("libs/one", "libs/two"):
        (pytester.path / room / "tests").mkdir(parents=True)
        (pytester.path / room / "tests" / f"test_{room[-3:]}.py").write_text("def test_x(): pass\n")
    result = pytester.runpytest_subprocess("-p", "oa_testing.suite.room_times", "-p", "no:cacheprovider")
    result.stdout.re_match_lines([r".* seconds by room .*", r" +\d+\.\d  libs/(one|two)", r" +\d+\.\d  all"])
