"""How does CCNet (Wenzek et al. 2020) normalize a line before its n-gram models read it?"""

import re
import unicodedata

# What is written for other punctuation.
PUNCTUATION = {
    **dict.fromkeys("，、", ","),
    **dict.fromkeys("„”“«»」「《》", '"'),
    **dict.fromkeys("´’", "'"),
    **dict.fromkeys("∶：", ":"),
    **dict.fromkeys("–━►", "-"),
    **{"。": ".", "？": "?", "！": "!", "（": "(", "）": ")", "；": ";", "．": ". ", "～": "~", "％": "%"},
    **{"—": " - ", "…": "...", "〈": "<", "〉": ">", "【": "[", "】": "]"},
}
CONTROL = [*range(32), *range(127, 160)]  # characters that are removed, tabs among them
TRANSLATION = str.maketrans(PUNCTUATION) | dict.fromkeys(CONTROL)
DIGIT = re.compile(r"\d")


def normalized(line: str) -> str:
    """The line in lower case and without accents, every digit 0, the most common punctuation in ASCII, and no
    control characters.
    """
    line = line.strip().lower()
    if not line.isascii():
        # Accents become characters of their own, which are left out.
        parts = unicodedata.normalize("NFD", line)
        line = "".join(character for character in parts if unicodedata.category(character) != "Mn")
    return DIGIT.sub("0", line).translate(TRANSLATION)
