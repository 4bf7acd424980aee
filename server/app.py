"""What the server runs under ``flower-superlink``; see README.md beside this file.

``flwr run . --run-config 'overrides="…"'`` says what to run, in the words of
``python -m fedpdm.simulate``. The rounds are fedpdm's, the same as in a simulation.
"""

from __future__ import annotations

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedpdm.deployment.server import serve

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run what the run config asks for, to the end."""
    try:
        serve(grid, context)
    except Exception as error:
        # Flower's own report of it goes to the SuperLink's output; this line reaches ``flwr log``.
        print(f"the run failed: {type(error).__name__}: {error}", flush=True)
        raise
