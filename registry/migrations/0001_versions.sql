-- A version: a name and a number that point at an envelope's bytes. The digest covers the name, so
-- one digest has one version.
CREATE TABLE versions (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    name          TEXT    NOT NULL,
    version       INTEGER NOT NULL CHECK (version >= 1),
    digest        TEXT    NOT NULL UNIQUE,
    description   TEXT    NOT NULL,
    created_at_ms INTEGER NOT NULL,
    UNIQUE (name, version)
) STRICT;

-- "Newest first" is read from this index.
CREATE INDEX versions_by_age ON versions (created_at_ms, id);

CREATE TABLE tags (
    version_id INTEGER NOT NULL REFERENCES versions (id) ON DELETE CASCADE,
    key        TEXT    NOT NULL,
    value      TEXT    NOT NULL,
    PRIMARY KEY (version_id, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX tags_by_value ON tags (key, value);
