"""What every test can ask for is documented at the top of `libs/oa_testing/plugin.py`."""

pytest_plugins = ["oa_testing.plugin"]
