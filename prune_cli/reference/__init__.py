"""Where is the reference model that is shipped with the package? README.md beside it is its card."""

from pathlib import Path

# A folder in the Hugging Face layout, like any other model.
DIRECTORY = Path(__file__).parent
