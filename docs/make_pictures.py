"""Make the pictures of docs/reading_a_softmax.md: run what it names, in a folder of its own.

python docs/make_pictures.py        # needs torch, scikit-learn and matplotlib
"""

import re
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

from PIL import Image

DOCS = Path(__file__).resolve().parent
PAGE = (DOCS / "reading_a_softmax.md").read_text(encoding="utf-8")
EXAMPLE = DOCS.parent / "examples" / "reject_others_torch.py"


def main() -> None:
    """Run the page's blocks up to the arrays that they save, its command, and its example."""
    blocks = re.findall(r"^ *```python\n(.*?)^ *```$", PAGE, re.MULTILINE | re.DOTALL)
    last = next(i for i, block in enumerate(blocks) if "np.save" in block)
    program = "".join(map(textwrap.dedent, blocks[: last + 1]))
    (command,) = re.findall(r"`softmaxkit (calibrate .+?)`", PAGE)
    with tempfile.TemporaryDirectory() as folder:
        for arguments in (
            ["-c", program],
            ["-m", "softmaxkit", *command.split()],
            [EXAMPLE, "reject_others.png"],
        ):
            subprocess.run([sys.executable, *arguments], cwd=folder, check=True)
        for picture in Path(folder).glob("*.png"):
            # They have few colours: a third of the size.
            with Image.open(picture) as image:
                few = image.convert("RGB").quantize(64, dither=Image.Dither.NONE)
                few.save(DOCS / "pictures" / picture.name, optimize=True)


if __name__ == "__main__":
    main()
