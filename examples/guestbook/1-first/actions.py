"""What a form can do: fields and request headers in, headers of the redirect out."""

import book


def sign(form, headers):
    name, message = form.get("name", ""), form.get("message", "")
    if not name or not message:
        raise ValueError("A name and a few words, please.")
    book.sign(name[:80], message[:1000])
    return {"Location": "/"}


ACTIONS = {"/sign": sign}
