from django.shortcuts import redirect, render

from board.models import Note


def wall(request):
    if request.method == "POST":
        Note.objects.create(text=request.POST["text"])
        return redirect("wall")
    return render(request, "board/wall.html", {"notes": Note.objects.order_by("id")})
