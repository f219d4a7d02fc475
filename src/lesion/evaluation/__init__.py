"""How good a model is: metrics with intervals, calibration, plots and the report."""
