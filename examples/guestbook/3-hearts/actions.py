"""What a form can do: fields and request headers in, headers of the redirect out."""

import book


def sign(form, headers):
    name, message = form.get("name", ""), form.get("message", "")
    if not name or not message:
        raise ValueError("A name and a few words, please.")
    book.sign(name[:80], message[:1000])
    return {"Location": "/"}


def heart(form, headers):
    entry = form.get("entry", "")
    if not entry.isdecimal():
        raise ValueError("A heart for which entry?")
    book.give_heart(int(entry))
    return {"Location": f"/#entry-{entry}"}


ACTIONS = {"/sign": sign, "/heart": heart}
