"""GGUF, the file of llama.cpp, Ollama and LM Studio: written from a variant's own codes, never rounded again."""
