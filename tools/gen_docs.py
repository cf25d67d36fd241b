"""Makes what is read off the code: `python -m tools.gen_docs` writes it, `--check` only compares."""

import argparse
from collections.abc import Callable
from pathlib import Path

from apps.cli.pages import cli_page
from tools.buf import REPO
from tools.docs_config import config_page
from tools.docs_errors import errors_page
from tools.k8s_rules import rules

PAGES: dict[str, Callable[[], str]] = {
    "docs/errors.md": errors_page,
    "docs/config.md": config_page,
    "docs/cli.md": cli_page,
    "deploy/k8s/components/monitoring/rules.yaml": rules,
}


def outdated(root: Path) -> dict[str, str]:
    """The pages below `root` that differ from what the code gives now, with the text that they should have."""
    fresh = {name: page() for name, page in PAGES.items()}
    return {name: text for name, text in fresh.items() if _read(root / name) != text}


def _read(path: Path) -> str | None:
    return path.read_text("utf-8") if path.exists() else None


def main() -> None:
    """Entry of `python -m tools.gen_docs`; ends with status 1 when the check finds a difference."""
    parser = argparse.ArgumentParser(description="Generate the documents made from code.")
    parser.add_argument("--check", action="store_true", help="compare only; status 1 when a page is not up to date")
    only_check = parser.parse_args().check
    pages = outdated(REPO)
    for name, text in pages.items():
        print(f"differs  {name}")
        if not only_check:
            (REPO / name).parent.mkdir(parents=True, exist_ok=True)
            (REPO / name).write_text(text, "utf-8")
    if not pages:
        print("the documents made from code are up to date")
    raise SystemExit(1 if only_check and pages else 0)


if __name__ == "__main__":
    main()
