"""The same experiment under Flower's SuperLink and supernodes, or its simulation runtime.

    headquarters   server/app.py    fedpdm.deployment.server   rounds, history, report
    plant          clients/app.py   fedpdm.deployment.client          its own file, its own folder
    between them   fedpdm.deployment.envelope                         what travels

Headquarters has no plant data: what it must know of it (names of the features, window,
counts) it asks of the plants, and what they test they test themselves.
"""
