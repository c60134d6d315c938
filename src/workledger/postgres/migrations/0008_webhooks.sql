-- Webhooks: where events are delivered to, and what could not be delivered.
--
-- A tour. A row of `webhooks` is an endpoint; the row `webhook:NAME` of `consumers` is its cursor. A process that
-- delivers takes the endpoint for a short time (`taken_by`, `taken_until`), so that events go there one after the
-- other, and another process goes on when it dies. While an event is refused, the row says how often, why, and when
-- it is tried again. After the last try the event is named in `webhook_dead_letters`, which does not repeat it.
-- A secret may be `env:NAME`: then it is in the environment of the deliverers and not in here.

CREATE TABLE webhooks (
    name            text PRIMARY KEY CHECK (name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$'),
    url             text NOT NULL CHECK (url ~ '^https?://' AND length(url) <= 2000),
    event_types     text[] CHECK (cardinality(event_types) > 0),
    secrets         text[] NOT NULL CHECK (cardinality(secrets) BETWEEN 1 AND 5),
    allow_private   boolean NOT NULL DEFAULT false,
    max_attempts    integer NOT NULL DEFAULT 20 CHECK (max_attempts BETWEEN 1 AND 100),
    created_at      timestamptz NOT NULL DEFAULT now(),
    disabled_at     timestamptz,
    disabled_reason text,
    attempts        integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    last_error      text,
    next_attempt_at timestamptz,
    taken_by        text,
    taken_until     timestamptz,
    CHECK ((disabled_at IS NULL) = (disabled_reason IS NULL))
);

CREATE TABLE webhook_dead_letters (
    webhook    text NOT NULL REFERENCES webhooks (name) ON DELETE CASCADE,
    position   bigint NOT NULL CHECK (position >= 1),
    event_id   uuid NOT NULL,
    event_type text NOT NULL,
    attempts   integer NOT NULL,
    reason     text NOT NULL,
    failed_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (webhook, position)
);
