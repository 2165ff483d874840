"""The smallest app that keeps connections: so that the router, not the app, is what is busy."""

import asyncio
import os

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 12\r\n\r\nhello world\n"


class Connection(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
        self.unread = b""

    def data_received(self, data):
        *heads, self.unread = (self.unread + data).split(b"\r\n\r\n")
        self.transport.write(ANSWER * len(heads))


async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Connection, os.environ["HOST"], int(os.environ["PORT"]))
    await server.serve_forever()


asyncio.run(main())
