"""Runs code that a model wrote: own process, no network, no files, no environment, limits on everything.

Its tests run in another process, in a sandbox of their own, and only values cross: code cannot pass itself.

bubblewrap or nsjail is used where it is installed and works, the kernel's namespaces directly otherwise; where none can
be had, running is refused unless the user insists (`none`: limits only).
"""

from qtool.evaluate.sandbox.run import USUAL, Known, Outcome, SandboxName, choose, execute
from qtool.evaluate.sandbox.wrappers import Limits

__all__ = ["USUAL", "Known", "Limits", "Outcome", "SandboxName", "choose", "execute"]
