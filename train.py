"""`python train.py …` is `cbam3d train …`."""

import sys

from cbam3d.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
