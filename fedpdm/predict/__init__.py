"""Scores new data with a finished run, on the command line and from Python."""

from fedpdm.predict.command import main
from fedpdm.predict.loading import load_predictor
from fedpdm.predict.ranking import machines

__all__ = ["load_predictor", "machines", "main"]
