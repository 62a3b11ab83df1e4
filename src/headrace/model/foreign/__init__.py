"""Any causal model that transformers has, behind the face of :class:`headrace.model.transformer.Transformer`.

It is trained as transformers computes it, without dropout. No code from its folder is run.
"""
