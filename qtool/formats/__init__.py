"""How quantized weights lie on disk: one module a format, and what they share."""

PLUGINS = ("awq", "compressed_tensors", "gptq")  # the other modules here are no formats of their own
