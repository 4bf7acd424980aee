"""What a site runs under ``flower-supernode``; see README.md beside this file.

The supernode's ``--node-config`` says which site this is and where its data lies. What
the run is (model, task, training), each message says. The work is fedpdm's, the same as in
``python -m fedpdm.simulate``.
"""

from __future__ import annotations

from fedpdm.deployment.client import DeployedSiteApp

app = DeployedSiteApp()
