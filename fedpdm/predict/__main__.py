"""``python -m fedpdm.predict``."""

import sys

from fedpdm.errors import run_command
from fedpdm.predict.command import main

if __name__ == "__main__":
    sys.exit(run_command(main))
