CREATE TABLE entries (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    message TEXT NOT NULL,
    signed INTEGER NOT NULL
);

INSERT INTO entries (name, message, signed) VALUES
    ('Grace', 'Came for the harbour, stayed for the soup. We will be back in spring.', strftime('%s', 'now') - 777600),
    ('Edsger', 'A quiet room, a good chair and a window. What else does one need?', strftime('%s', 'now') - 345600),
    ('Ada', 'The view from the tower is worth every one of its 212 steps. I counted.', strftime('%s', 'now') - 86400);
