"""Model versions and deployments: which version is the champion, and which were."""
