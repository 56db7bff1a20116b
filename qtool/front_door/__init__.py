"""What `import qtool` offers: a Python function for every command, with the same defaults and the same results."""

from qtool.front_door.presentation import register

register()
