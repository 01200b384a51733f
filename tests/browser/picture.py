"""Makes the README's picture again: `python tests/browser/picture.py notebooks/images/lab.png`.

It opens a short notebook in JupyterLab, lets the playground write, and photographs the page.
"""

import io
import shutil
import sys
import tempfile
from pathlib import Path

from lab_page import browse, open_notebook, run_all_cells, serve
from PIL import Image

from minigpt.course import PROJECT

CELLS = (
    "from minigpt import load_checkpoint\n"
    "from minigpt.lab.widgets import playground\n\n"
    'model, tokenizer = load_checkpoint("data/checkpoints/shakespeare")',
    'playground(model, tokenizer, prompt="HAMLET:\\nTo be, or not to")',
)


def photograph(root: Path) -> bytes:
    """A PNG of the page after the button was pressed and is free again."""
    with serve(root) as lab, browse(lab, viewport={"width": 1240, "height": 780}) as profile:
        lab.write("playground.ipynb", *CELLS)
        page = profile.new_page()
        open_notebook(page, lab, "playground.ipynb")
        run_all_cells(page)
        write = page.get_by_role("button", name="Write")
        write.click()
        page.locator(".widget-html span").wait_for()
        write.and_(page.locator(":enabled")).wait_for()
        return page.screenshot()


def main(path: str) -> None:
    """Write the picture in few colours, so that it is small."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(PROJECT / "data" / "checkpoints", Path(folder) / "data" / "checkpoints")
        photo = photograph(Path(folder))
    Path(path).parent.mkdir(exist_ok=True)
    Image.open(io.BytesIO(photo)).convert("RGB").quantize(64, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
