"""The screens of the page, and their parts."""
