-- Region database "outpost", version 4: where what comes in has changed.
--
-- Who runs it : as 0001, after 0003.
-- Touches     : outpost.drift_alarms and its grant. fleet_export, the contract with the centre, stays as it is.
-- Again       : harmless; one transaction.
--
-- No patient data may enter: before and now_is are shares of values of equipment attributes and quantiles, never of
-- single images; values that are rare are not named (outpost/drift).

BEGIN;
SET LOCAL client_min_messages = warning;

CREATE TABLE IF NOT EXISTS outpost.drift_alarms (
    system     text NOT NULL CHECK (system ~ '^[a-z][a-z0-9-]{1,30}$'),
    sender     text NOT NULL CHECK (sender ~ '^[ -~]{1,16}$'), -- AE title, or * for all of them together
    tag        text NOT NULL CHECK (tag ~ '^[A-Za-z0-9_.]{1,80}$'),
    aspect     text NOT NULL CHECK (aspect IN ('values', 'missing')),
    raised_on  date NOT NULL,  -- last day of the window that showed it
    since      date NOT NULL,  -- the day it seems to have begun
    ended_on   date,           -- last day of the window that no longer showed it
    test       text NOT NULL,
    statistic  double precision NOT NULL,
    adjusted_p double precision NOT NULL,
    effect     double precision NOT NULL,
    before     text NOT NULL CHECK (length(before) <= 200),
    now_is     text NOT NULL CHECK (length(now_is) <= 200),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (system, sender, tag, aspect, raised_on)
);
GRANT SELECT, INSERT, UPDATE ON outpost.drift_alarms TO outpost_recorder;

INSERT INTO outpost.schema_version (version) VALUES (4) ON CONFLICT DO NOTHING;
COMMIT;
