"""The keys and the environment of scripts/prepare.py."""

ADMIN = "lesion_0123456789abcdef_" + "0123456789abcdef" * 4


METRICS = "lesion_fedcba9876543210_" + "fedcba9876543210" * 4


ENVIRONMENT = {"LESION_ADMIN_KEY": ADMIN, "LESION_METRICS_KEY": METRICS}
