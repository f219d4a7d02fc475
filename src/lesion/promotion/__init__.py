"""The promotion gate: paired statistics that decide whether a challenger replaces the champion."""
