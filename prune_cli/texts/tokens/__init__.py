"""From characters to tokens: where texts are cut, which words they have, and which tokens words have."""
