from django.db import models


class Note(models.Model):
    text = models.TextField()
    stars = models.IntegerField(db_default=0)
