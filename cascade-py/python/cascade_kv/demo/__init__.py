"""The main job on real input: a model's KV is computed once, its process killed, and another process goes on from it.

Run it with ``python -m cascade_kv.demo --model-dir DIR --gguf FILE --out DIR``; it needs torch and transformers (and
gguf and accelerate for a GGUF model), and uses a GPU if torch finds one.
"""
