"""``python -m fedpdm.history``."""

import sys

from fedpdm.history import main

sys.exit(main())
