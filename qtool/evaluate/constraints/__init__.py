"""Instructions whose keeping a program can check, under the names that IFEval gave them."""
