"""What do the errors of transformers and its kin say, in one line, and what can a user do about them?"""

MOST_CHARACTERS = 200


def first_line(error: BaseException) -> str:
    """The first line of an error's text that is not empty, at most 200 characters; the error's class if it
    has none.

    A line that ends with a colon is followed by the next: "Validation error for field 'x':" says nothing yet.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    text = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    return text[:MOST_CHARACTERS]


def remedy_of(error: BaseException, otherwise: str) -> str:
    """What to do about an error while a model or tokenizer is loaded."""
    # A missing package is not always an ImportError: that of tiktoken is a ValueError.
    if isinstance(error, ImportError) or "pip install" in str(error):
        return "install that package, or convert the files to a format that needs none"
    # Such as a null where a number belongs. By the name of its class, which moved between versions.
    if "Validation" in type(error).__name__:
        return "correct config.json"
    return otherwise
