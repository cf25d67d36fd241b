"""What every test can ask for is documented at the top of `libs/oa_testing/plugin.py`."""

from hypothesis import settings

pytest_plugins = ["oa_testing.plugin"]

# How long one example takes says more about the machine's other work than about ours; pytest-timeout guards the whole.
settings.register_profile("house", deadline=None, print_blob=True)
settings.load_profile("house")
