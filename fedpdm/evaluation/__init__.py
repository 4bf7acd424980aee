"""Evaluation: the final test, thresholds, calibration, intervals, alarms and certainty."""
