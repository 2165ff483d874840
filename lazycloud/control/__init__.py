"""Control: what decides, for routers, people and programs. An aiohttp application behind two unix sockets.

link       answers the routers: which worker a host's requests go to
resolver   host -> deployment -> route; asks the fleet for what is not up
names      which of them a front may get a certificate for
identity   who asks: name, role, how, and for which app; what each role may do
auth       a request's identity, tickets, cookies, Origin
guard      between a route of the API and its handler: its role, and the event that says who
accounts   people; passwords, sessions, tokens, each in a file of its own; uses: when they were used last
people     the API of accounts, tokens and sessions
logins     logging in and out; guesses: wrong ones ever more slowly
keys       the two secrets of the home folder
pages      the landing page, every sentence we say, the control page
progress   the websocket of a landing page
api        what the command line and the control page speak
views      the JSON shapes of both
"""
