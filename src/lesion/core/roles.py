"""The roles of API keys."""

from typing import Literal, get_args

Role = Literal["viewer", "contributor", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)
"""From the lowest role to the highest; each may do what the roles before it may do."""
