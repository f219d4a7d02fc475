"""Recording which names commands look up."""
