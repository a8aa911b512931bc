-- Schema 1. Times are seconds since 1970 (UTC), digests SHA-256, certificates DER.
-- Every certificate names its issuer, profile, operator and CRL shard, so that a rollover to a new
-- intermediate, or sharded CRLs, need no new schema.
--
-- signetd compares this text with what its database was made from, so an edit here, of a comment
-- too, is a new schema: it wants a new number and a way there from this one.

CREATE TABLE meta (            -- schema; projected: journal sequence whose files are on disk
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE ca_key (          -- a key in a token; two issuers may share one (a renewed certificate)
    id          INTEGER PRIMARY KEY,
    spki_sha256 BLOB NOT NULL UNIQUE
) STRICT;

CREATE TABLE issuer (
    id                 INTEGER PRIMARY KEY,
    key                INTEGER NOT NULL REFERENCES ca_key,
    name_sha256        BLOB NOT NULL,           -- of the subject name, DER
    certificate_sha256 BLOB NOT NULL UNIQUE,
    certificate        BLOB NOT NULL,
    not_after          INTEGER NOT NULL,
    added_at           INTEGER NOT NULL
) STRICT;

CREATE TABLE operator (        -- a stable id that a renewed certificate keeps
    id         INTEGER PRIMARY KEY,
    name       TEXT NOT NULL UNIQUE,
    roles      INTEGER NOT NULL,                -- bits of enum role
    created_at INTEGER NOT NULL,
    revoked_at INTEGER
) STRICT;

CREATE TABLE certificate (
    id               INTEGER PRIMARY KEY,
    issuer           INTEGER NOT NULL REFERENCES issuer,
    serial           BLOB NOT NULL,
    state            INTEGER NOT NULL,          -- enum certificate_state
    profile          TEXT NOT NULL,
    name             TEXT NOT NULL,             -- MAC, host name or operator's name
    operator         INTEGER REFERENCES operator, -- who asked; NULL: signetd or signetctl
    subject_operator INTEGER REFERENCES operator, -- whose client certificate this is
    spki_sha256      BLOB NOT NULL,
    tbs_sha256       BLOB NOT NULL,
    der_sha256       BLOB,
    not_before       INTEGER NOT NULL,
    not_after        INTEGER NOT NULL,
    shard            INTEGER NOT NULL DEFAULT 0,
    created_at       INTEGER NOT NULL,          -- of the intent
    issued_at        INTEGER,
    revoked_at       INTEGER,
    reason           INTEGER,
    replaces         INTEGER REFERENCES certificate,
    board            INTEGER NOT NULL DEFAULT 0, -- what the laptop reported of it
    der              BLOB,                      -- NULL until the token has signed
    UNIQUE (issuer, serial)
) STRICT;

CREATE INDEX certificate_by_name ON certificate (name);
CREATE INDEX certificate_by_key ON certificate (spki_sha256);
CREATE INDEX certificate_by_subject_operator ON certificate (subject_operator)
    WHERE subject_operator IS NOT NULL;
CREATE INDEX certificate_by_operator ON certificate (operator); -- and so by id
CREATE INDEX certificate_by_state ON certificate (state);
CREATE INDEX certificate_by_time ON certificate (created_at);
CREATE INDEX certificate_on_crl ON certificate (issuer, shard, serial) WHERE state >= 2;

CREATE TABLE request (         -- exactly once: what was asked, and what became of it
    key         BLOB PRIMARY KEY,
    body_sha256 BLOB NOT NULL,
    certificate INTEGER REFERENCES certificate, -- what it led to, when that is one
    result      INTEGER NOT NULL DEFAULT 0,     -- else a time or count, as the operation says
    created_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX request_by_certificate ON request (certificate);

CREATE TABLE usage (           -- what the caps count; operator 0: all of them
    operator INTEGER NOT NULL,
    hour     INTEGER NOT NULL,                  -- since 1970
    issued   INTEGER NOT NULL,
    revoked  INTEGER NOT NULL,
    PRIMARY KEY (operator, hour)
) STRICT, WITHOUT ROWID;

CREATE TABLE crl (
    issuer      INTEGER NOT NULL REFERENCES issuer,
    shard       INTEGER NOT NULL,
    number      INTEGER NOT NULL,
    this_update INTEGER NOT NULL,
    next_update INTEGER NOT NULL,
    journal_seq INTEGER NOT NULL,               -- what it anchors
    sha256      BLOB,                           -- NULL until published
    PRIMARY KEY (issuer, shard, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE journal (         -- the truth behind journal.log, a line a row
    seq         INTEGER PRIMARY KEY,
    at          INTEGER NOT NULL,
    line        TEXT NOT NULL,
    hash        BLOB NOT NULL,                  -- SHA-256 of the hash before and this line
    certificate INTEGER REFERENCES certificate  -- whose file this event made
) STRICT;
