"""Arrays to arrays, each op with a backward pass written by hand: a textbook of backpropagation.

Every op reads alike: `_op_forward` computes and says what to keep, `_op_backward` states its
formulas and computes the cotangents, and the op itself is the plain definition. `RULES` lists them.
"""
