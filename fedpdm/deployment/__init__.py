"""The same experiment under Flower's SuperLink and SuperNodes, or its simulation runtime.

    the server   server/app.py    fedpdm.deployment.server   rounds, history, report
    site          clients/app.py   fedpdm.deployment.client          its own file, its own folder
    between them   fedpdm.deployment.envelope                         what travels

The server has no site data: what it must know of it (names of the features, window,
counts) it asks of the sites, and what they test they test themselves.
"""
