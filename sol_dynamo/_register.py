"""What `import torch` runs: the log names of this package, and the name of the device "ve".

Nothing heavy may be imported here.
"""

from __future__ import annotations

import logging


def register() -> None:
    """Make TORCH_LOGS=sol known (torch 2.11 to 2.13: TORCH_LOGS=+sol_dynamo), and torch.ve."""
    from .compat import register_log

    register_log("sol", "sol_dynamo")
    from .ve import registration

    try:
        registration.register()
    except Exception:  # of a torch that nobody has tried: `import torch` must not fail
        logging.getLogger("sol_dynamo").exception('no device "ve"; SOL_VE=0 leaves it out')
