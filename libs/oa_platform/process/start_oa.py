"""The beginning of `oa`: handles Ctrl-C before the package `openagents` is loaded, and everything that it needs."""

from oa_platform.process import interrupts

interrupts.ends_at_once()

from importlib import import_module  # noqa: E402


def main() -> None:
    """Run `oa` and end the process with its exit code."""
    import_module("openagents._oa").main()


if __name__ == "__main__":
    main()
