"""How operations on instances are carried out: steps that look, do and verify, and the plans made of them."""
