"""From image bytes to pixels and back: the decoder, the preprocessing, heat maps and contact sheets."""
