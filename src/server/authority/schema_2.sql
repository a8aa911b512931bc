-- Schema 2: what it has beside schema 1 (schema.sql). Frozen as that one is: what comes next is a
-- schema_3.sql. signetd brings a store of schema 1 here when it opens it.

CREATE TABLE enrolment (       -- a password that signetctl made, with which devices get certificates
    id              INTEGER PRIMARY KEY,
    operator        INTEGER NOT NULL UNIQUE REFERENCES operator, -- who asked, of what it led to
    user            TEXT NOT NULL UNIQUE,
    password_sha256 BLOB NOT NULL,              -- of 128 random bits and more: no salt, no stretching
    profile         TEXT NOT NULL,
    mac             TEXT,                       -- the one board it is for; NULL: any
    uses_max        INTEGER NOT NULL,
    uses            INTEGER NOT NULL DEFAULT 0 CHECK (uses BETWEEN 0 AND uses_max),
    not_after       INTEGER NOT NULL,
    created_at      INTEGER NOT NULL,
    ended_at        INTEGER                     -- by signetctl
) STRICT;

CREATE TABLE enrolled (        -- which use went where; what becomes an orphan gives it back
    certificate INTEGER PRIMARY KEY REFERENCES certificate,
    enrolment   INTEGER NOT NULL REFERENCES enrolment
) STRICT;
CREATE INDEX enrolled_by_enrolment ON enrolled (enrolment);

CREATE TABLE crl_url (         -- each public_url that certificates name their shard's CRL by
    url TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;

-- With all that a CRL says of them: a million entries are read in their order, not a million rows
-- here and there. Shard -1: nobody knows which (a certificate lost in a restore); on every one.
DROP INDEX certificate_on_crl;
CREATE INDEX certificate_on_crl ON certificate (issuer, shard, serial, revoked_at, reason, not_after)
    WHERE state >= 2;
