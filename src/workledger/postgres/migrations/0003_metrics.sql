-- The metrics: what the log adds up to.
--
-- A tour. The consumer `metrics` reads the log in order and adds what it finds to these tables in the transaction
-- that moves its cursor, so that they survive restarts, count every event once, and can be made again from the
-- log. `metric_counters` and `metric_histograms` hold one row per series and per bucket of a series; `labels` are
-- the values of the labels in the order in which workledger.metrics.instruments declares them. `metric_hours` keeps
-- the counters by status a second time, by the hour of the event, for questions such as "which task failed most
-- since yesterday". `metric_label_values` remembers which values of an open label came first and have series of
-- their own; all later ones share the value "other". Ids are never labels.

CREATE TABLE metric_counters (
    name   text NOT NULL,
    labels text[] NOT NULL,
    value  numeric NOT NULL CHECK (value >= 0),
    PRIMARY KEY (name, labels)
) WITH (fillfactor = 50);

-- Buckets are kept apart, not cumulated; the last one has the upper bound Infinity.
CREATE TABLE metric_histograms (
    name         text NOT NULL,
    labels       text[] NOT NULL,
    upper_bound  double precision NOT NULL,
    observations bigint NOT NULL CHECK (observations >= 0),
    total        numeric NOT NULL CHECK (total >= 0),
    PRIMARY KEY (name, labels, upper_bound)
) WITH (fillfactor = 50);

CREATE TABLE metric_hours (
    name   text NOT NULL,
    hour   timestamptz NOT NULL,
    labels text[] NOT NULL,
    value  numeric NOT NULL CHECK (value >= 0),
    PRIMARY KEY (name, hour, labels)
) WITH (fillfactor = 50);

CREATE TABLE metric_label_values (
    domain         text NOT NULL,
    value          text NOT NULL,
    first_position bigint NOT NULL,
    PRIMARY KEY (domain, value)
);
