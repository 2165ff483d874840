"""The data plane: every byte between a client and an app passes here, and nothing else is done here.

    client      one connection of a browser or curl; reads heads, one exchange at a time
    exchange    one request and its answer: decides where it goes, relays both ways, ends once
    upstream    one connection to a worker or to control, kept alive in the pool of its address
    table       host -> route, as control last said; what is unknown is asked over the link
    tunnel      a websocket after the worker's 101: bytes both ways until one side dies
    tls         the certificate by the name that a client asks for; redirect: port 80, which sends it to https
    activity    what each deployment's visitors did, counted; told to control once a second

A request that hits runs in callbacks only: no task, no await, no timer of its own. Deadlines are found by a
sweep of all connections once per `Settings.sweep`. Heads are judged by llhttp and written once as bytes;
bodies pass as they came, with back-pressure. Nothing of ours is imported but `lazycloud.errors` and
`lazycloud.certificates`: never control, SQL or git.
"""
