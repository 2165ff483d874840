FROM python:3.12-slim

RUN apt-get update \
    && apt-get install -y --no-install-recommends git nodejs npm openssh-client tini \
    && rm -rf /var/lib/apt/lists/*
COPY . /src
RUN pip install --no-cache-dir /src && rm -r /src \
    && useradd --create-home --uid 1000 lazycloud && install -d -o lazycloud /var/lib/lazycloud /apps
USER lazycloud
ENV LAZYCLOUD_HOME=/var/lib/lazycloud LAZYCLOUD_LISTEN=0.0.0.0:8000
EXPOSE 8000
VOLUME /var/lib/lazycloud
# Workers whose control was killed become children of lazycloud up, which reaps them; tini reaps the rest.
ENTRYPOINT ["tini", "--", "lazycloud"]
CMD ["up"]
