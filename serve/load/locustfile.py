"""Load test of a running server with Locust.

    locust -f serve/load/locustfile.py --headless --users 20 --spawn-rate 10 --run-time 30s --host http://127.0.0.1:8000

Without --headless Locust shows its own page, at http://127.0.0.1:8089. Locust exits with 1 when any request failed. A
response with wrong content is a failure, whatever its status; the right refusal of a bad request is a success.
Of 21 users 20 are visitors, who predict, and one sends requests that must be refused; the name of a class at the end of
the command line (… Visitor) runs only that class. Experts and the operator need a server with a storage, and change
what it holds.
Environment:

    LESION_LOAD_IMAGES   a folder of images to send (searched recursively, at most 200); "mixed" for generated ones of
                         many kinds and sizes, up to 4 MB; by default generated scans, JPEGs of 512 × 512 pixels
    LESION_LOAD_EXPLAIN  the share of predictions that ask for an overlay, 0 to 1 (default 0.1)
    LESION_LOAD_UPLOADS  1: experts too, one of every 22 users, who upload labeled images
    LESION_LOAD_RETRAIN  1: an operator too, who retrains once
    LESION_API_KEY       the key to send, where the server requires one
"""

import os

from serve.load.users import Mistaken, Visitor

__all__ = ["Mistaken", "Visitor"]

if os.environ.get("LESION_LOAD_UPLOADS") == "1":
    from serve.load.loop_users import Expert

    __all__ += ["Expert"]
if os.environ.get("LESION_LOAD_RETRAIN") == "1":
    from serve.load.loop_users import Operator

    __all__ += ["Operator"]
