"""Makes the README's picture again: `python tests/browser/picture.py notebooks/images/lab.png`.

It runs all of notebook 00 in JupyterLab, goes to the playground, lets it write, and photographs the page.
"""

import io
import shutil
import sys
import tempfile
from pathlib import Path

from lab_page import browse, open_notebook, run_all_cells, serve
from PIL import Image

from minigpt.course import NOTEBOOKS, PROJECT

LONGEST = 20 * 60_000  # milliseconds that the notebook may take
MOST_BYTES = 150_000


def photograph(lab: object, notebook: str, heading: str) -> bytes:
    """A PNG of the page at a heading, after the button below it was pressed and is free again."""
    with browse(lab, viewport={"width": 960, "height": 800}, device_scale_factor=1.5) as profile:
        page = profile.new_page()
        open_notebook(page, lab, notebook)
        run_all_cells(page)
        page.locator("[data-id='table-of-contents']").click()
        entry = page.locator("#table-of-contents").get_by_text(heading, exact=True)
        entry.click()
        write = page.get_by_role("button", name="Write", exact=True)
        write.wait_for(timeout=LONGEST)
        page.get_by_text("| Idle").wait_for(timeout=LONGEST)
        entry.click()
        page.locator("[data-id='table-of-contents']").click()  # closes it
        write.click()
        page.locator(".widget-html span").wait_for()
        write.and_(page.locator(":enabled")).wait_for()
        page.get_by_role("heading", name=heading).evaluate("heading => heading.scrollIntoView()")
        return page.screenshot()


def main(path: str) -> None:
    """Write the picture in few colours, so that it is small."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        shutil.copytree(NOTEBOOKS, root / "notebooks")
        shutil.copytree(PROJECT / "data" / "checkpoints", root / "data" / "checkpoints")
        with serve(root) as lab:
            photo = photograph(lab, "notebooks/00_start_here.ipynb", "Your turn")
    picture = Image.open(io.BytesIO(photo)).convert("RGB").quantize(64, dither=Image.Dither.NONE)
    picture.save(path, optimize=True)
    if Path(path).stat().st_size > MOST_BYTES:
        sys.exit(f"{path} has {Path(path).stat().st_size:,} bytes; it may have {MOST_BYTES:,}")


if __name__ == "__main__":
    main(*sys.argv[1:])
