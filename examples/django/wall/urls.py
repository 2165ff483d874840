from board import views
from django.urls import path

urlpatterns = [path("", views.wall, name="wall")]
