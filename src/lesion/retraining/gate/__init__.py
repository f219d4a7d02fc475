"""Champion and challenger before the promotion gate: their images, their predictions, and the decision."""
