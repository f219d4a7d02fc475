"""The inference workers and how requests reach them."""
