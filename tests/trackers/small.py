"""The smallest run: one site, seconds."""

SMALL = ["model=mlp", "training.local_epochs=1", "sites.detroit.machines=4", "site=detroit",
         "engine=serial", "baselines.max_plants=0"]  # fmt: skip
