from django.db import connection
from django.http import HttpResponse, JsonResponse

from notes.models import Note


def notes(request):
    if request.method == "POST":
        Note.objects.create(text=request.body.decode())
        return HttpResponse(status=201)
    with connection.cursor() as cursor:
        columns = connection.introspection.get_table_description(cursor, Note._meta.db_table)
    texts = Note.objects.order_by("id").values_list("text", flat=True)
    return JsonResponse({"notes": list(texts), "columns": [column.name for column in columns]})
