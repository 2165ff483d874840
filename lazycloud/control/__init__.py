"""Control: what decides, for routers, people and programs. An aiohttp application behind two unix sockets.

link       answers the routers: which worker a host's requests go to
resolver   host -> deployment -> route; asks the fleet for what is not up
names      which of them a front may get a certificate for
auth       token, login, sessions, tickets, Origin
pages      the landing page, every sentence we say, the control page
progress   the websocket of a landing page
api        what the command line and the control page speak
views      the JSON shapes of both
"""
