"""Every class of topics is held against the conformance suite of `oa_topics`."""

import re

from oa_khala import topics
from tests.house.files import python_files

_RUN_OF_THE_SUITE = re.compile(r"^class \w+\(TopicSourceSuite\):\n    of = (\w+)$", re.MULTILINE)


def test_each_class_of_topics_has_a_run_of_the_suite() -> None:
    classes = [name for name, value in vars(topics).items() if isinstance(value, topics.TopicClass)]
    assert sorted(name for file in python_files() for name in _RUN_OF_THE_SUITE.findall(file.text)) == sorted(classes)
