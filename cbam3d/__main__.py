"""`python -m cbam3d …` is `cbam3d …`."""

import sys

from cbam3d.cli import main

if __name__ == "__main__":
    sys.exit(main())
