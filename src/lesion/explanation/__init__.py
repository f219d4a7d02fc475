"""Why a model decides: class-activation maps, overlays and their faithfulness."""
