"""N-gram models of KenLM: the model, and the normalization of CCNet."""
