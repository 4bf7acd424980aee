"""The batched engine: sites trained together as one stacked model."""
