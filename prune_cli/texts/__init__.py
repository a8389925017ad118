"""What metrics are computed from without a language model: word sequences, token frequencies, classifiers."""
