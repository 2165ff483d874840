import os

import dj_database_url

SECRET_KEY = os.environ.get("SECRET_KEY", "only for tests")
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = ["notes"]
ROOT_URLCONF = "shop.urls"
WSGI_APPLICATION = "shop.wsgi.application"
DATABASES = {"default": dj_database_url.config(conn_max_age=600)}
DATABASES["default"]["OPTIONS"] = {"timeout": 20, "transaction_mode": "IMMEDIATE"}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
