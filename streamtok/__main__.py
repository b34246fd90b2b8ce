"""`python -m streamtok`: the same as the console script `streamtok`."""

import sys

from streamtok.cli import main

sys.exit(main())
