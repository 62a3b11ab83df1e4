"""``python -m bench.screenshots RUN``: the pictures of docs/viewer.md, of a run of the demo, in headless Chromium."""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

SHOTS = {
    "run": ("/", "light", "figure"),
    "tokens": ("/sequences/stage2?row=40", "light", "header"),
    "copies": ("/removed?reason=duplicate&source=web&at=2", "dark", ".case"),
    "corpus": ("/corpus", "light", "header"),
}
"""File -> address, color scheme, and what is at its top."""
OUT = Path(__file__).resolve().parents[1] / "docs" / "images" / "viewer"
SIZE = {"width": 1120, "height": 800}


def main() -> None:
    """Serve the run, and take the pictures."""
    from playwright.sync_api import expect, sync_playwright

    parser = argparse.ArgumentParser(prog="python -m bench.screenshots", description=__doc__)
    parser.add_argument("run", type=Path, help="the run folder of recipes/demo.yaml")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the pictures")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "headrace", "view", str(chosen.run), "--no-browser", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server, sync_playwright() as playwright:
        try:
            assert server.stdout is not None
            found = re.search(r"http://\S+(?=/ )", server.stdout.readline())
            assert found is not None
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            for name, (address, scheme, top) in SHOTS.items():
                page = browser.new_page(viewport=SIZE, color_scheme=scheme, base_url=found[0])
                page.goto(address)
                expect(page.locator(".pending")).to_have_count(0, timeout=60_000)
                page.locator(top).first.evaluate("one => one.scrollIntoView({behavior: 'instant'})")
                page.screenshot(path=chosen.out / f"{name}.png")
                page.close()
            browser.close()
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
