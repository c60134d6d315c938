-- The state tables: what is running, what failed, what was said.
--
-- A tour. `workflows` holds one row per run, `task_executions` one row per attempt at a task; both keep the
-- names of the original schema, so that queries written against it run unchanged. `conversations`, `messages`
-- and `feedback` hold what was said and how it was judged. `definitions` are the registered templates,
-- `workers` the processes that record. Every row here is a function of the event log (0002): nothing writes a
-- state row without inserting, in the same statement, the event that explains it. The one exception is
-- `workers.heartbeat_at`, which says that a process is alive now and is nobody's history.
--
-- Values over a few KiB live once in `payloads`, addressed by digest; rows then hold a small reference to them.

CREATE TABLE definitions (
    name          text NOT NULL CHECK (length(name) BETWEEN 1 AND 255),
    version       text NOT NULL CHECK (length(version) BETWEEN 1 AND 100),
    steps         jsonb NOT NULL DEFAULT '[]'::jsonb CHECK (jsonb_typeof(steps) = 'array'),
    source_digest text,
    created_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (name, version)
);

CREATE TABLE workers (
    worker_id    text PRIMARY KEY CHECK (length(worker_id) BETWEEN 1 AND 255),
    hostname     text NOT NULL,
    pid          integer NOT NULL,
    version      text NOT NULL,
    started_at   timestamptz NOT NULL DEFAULT now(),
    heartbeat_at timestamptz NOT NULL DEFAULT now(),
    lease_s      double precision NOT NULL DEFAULT 30 CHECK (lease_s > 0),
    stopped_at   timestamptz,
    lost_at      timestamptz
);

CREATE TABLE workflows (
    workflow_id         text PRIMARY KEY CHECK (length(workflow_id) BETWEEN 1 AND 255),
    name                text CHECK (length(name) <= 255),
    workflow_type       text CHECK (length(workflow_type) <= 100),
    status              text NOT NULL DEFAULT 'pending'
                        CHECK (status IN ('pending', 'running', 'completed', 'failed', 'cancelled')),
    current_step        text CHECK (length(current_step) <= 255),
    total_steps         integer NOT NULL DEFAULT 0 CHECK (total_steps >= 0),
    completed_steps     integer NOT NULL DEFAULT 0 CHECK (completed_steps >= 0),
    state_data          jsonb NOT NULL DEFAULT '{}'::jsonb,
    error               text,
    created_at          timestamptz NOT NULL DEFAULT now(),
    updated_at          timestamptz NOT NULL DEFAULT now(),
    started_at          timestamptz,
    completed_at        timestamptz,
    error_type          text,
    error_traceback     text,
    input_data          jsonb,
    output_data         jsonb,
    metadata            jsonb NOT NULL DEFAULT '{}'::jsonb,
    tags                text[] NOT NULL DEFAULT '{}',
    definition_version  text,
    parent_workflow_id  text,
    conversation_id     text,
    subject             text CHECK (length(subject) <= 255),
    trace_id            text CHECK (length(trace_id) <= 64),
    worker_id           text,
    attempt             integer NOT NULL DEFAULT 1 CHECK (attempt >= 1),
    execution_time_ms   double precision CHECK (execution_time_ms >= 0),
    cancel_requested_at timestamptz,
    CHECK ((status IN ('completed', 'failed', 'cancelled')) = (completed_at IS NOT NULL))
) WITH (fillfactor = 80);

CREATE INDEX idx_workflows_status ON workflows (status);
CREATE INDEX workflows_running_by_age ON workflows (started_at, workflow_id) WHERE status = 'running';
CREATE INDEX workflows_failed_by_time ON workflows (completed_at DESC, workflow_id DESC) WHERE status = 'failed';
CREATE INDEX workflows_newest ON workflows (created_at DESC, workflow_id DESC);
CREATE INDEX workflows_by_subject ON workflows (subject, created_at DESC) WHERE subject IS NOT NULL;
CREATE INDEX workflows_by_parent ON workflows (parent_workflow_id) WHERE parent_workflow_id IS NOT NULL;

CREATE TABLE task_executions (
    execution_id        text PRIMARY KEY CHECK (length(execution_id) BETWEEN 1 AND 255),
    workflow_id         text NOT NULL REFERENCES workflows (workflow_id),
    task_name           text CHECK (length(task_name) <= 255),
    status              text NOT NULL DEFAULT 'pending'
                        CHECK (status IN ('pending', 'running', 'completed', 'failed', 'cancelled')),
    input_data          jsonb DEFAULT '{}'::jsonb,
    output_data         jsonb,
    error               text,
    retry_count         integer NOT NULL DEFAULT 0 CHECK (retry_count >= 0),
    execution_time_ms   double precision CHECK (execution_time_ms >= 0),
    created_at          timestamptz NOT NULL DEFAULT now(),
    started_at          timestamptz,
    completed_at        timestamptz,
    kind                text NOT NULL DEFAULT 'task' CHECK (kind IN ('task', 'tool', 'llm', 'agent')),
    parent_execution_id text,
    step_key            text CHECK (length(step_key) <= 255),
    input_digest        text,
    worker_id           text,
    error_type          text,
    error_traceback     text,
    input_tokens        bigint CHECK (input_tokens >= 0),
    output_tokens       bigint CHECK (output_tokens >= 0),
    cost_usd            numeric CHECK (cost_usd >= 0),
    model               text,
    metadata            jsonb NOT NULL DEFAULT '{}'::jsonb,
    CHECK ((status IN ('completed', 'failed', 'cancelled')) = (completed_at IS NOT NULL))
) WITH (fillfactor = 80);

CREATE INDEX idx_task_executions_workflow ON task_executions (workflow_id);
CREATE INDEX idx_task_executions_status ON task_executions (status);
CREATE INDEX task_executions_running_by_age ON task_executions (started_at, execution_id) WHERE status = 'running';
CREATE INDEX task_executions_failed_by_time
    ON task_executions (completed_at DESC, execution_id DESC) WHERE status = 'failed';

CREATE TABLE conversations (
    conversation_id text PRIMARY KEY CHECK (length(conversation_id) BETWEEN 1 AND 255),
    title           text,
    subject         text CHECK (length(subject) <= 255),
    metadata        jsonb NOT NULL DEFAULT '{}'::jsonb,
    last_seq        bigint NOT NULL DEFAULT 0 CHECK (last_seq >= 0),
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 80);

CREATE INDEX conversations_newest ON conversations (created_at DESC, conversation_id DESC);
CREATE INDEX conversations_by_subject ON conversations (subject, created_at DESC) WHERE subject IS NOT NULL;

-- A message keeps the chat-completion object it came as, losslessly: a key that was absent is SQL NULL, a key
-- that was null is JSON null, and keys without a column of their own are in `extra`.
CREATE TABLE messages (
    message_id      text PRIMARY KEY CHECK (length(message_id) BETWEEN 1 AND 255),
    conversation_id text NOT NULL REFERENCES conversations (conversation_id),
    seq             bigint NOT NULL CHECK (seq >= 1),
    role            text NOT NULL CHECK (length(role) BETWEEN 1 AND 50),
    content         jsonb,
    tool_calls      jsonb,
    tool_call_id    text,
    name            text,
    extra           jsonb NOT NULL DEFAULT '{}'::jsonb,
    workflow_id     text,
    execution_id    text,
    parent_seq      bigint,
    model           text,
    input_tokens    bigint CHECK (input_tokens >= 0),
    output_tokens   bigint CHECK (output_tokens >= 0),
    cost_usd        numeric CHECK (cost_usd >= 0),
    created_at      timestamptz NOT NULL DEFAULT now(),
    removed_at      timestamptz,
    UNIQUE (conversation_id, seq)
);

CREATE INDEX messages_by_workflow ON messages (workflow_id) WHERE workflow_id IS NOT NULL;

CREATE TABLE feedback (
    feedback_id  text PRIMARY KEY CHECK (length(feedback_id) BETWEEN 1 AND 255),
    workflow_id  text,
    execution_id text,
    message_id   text,
    name         text NOT NULL CHECK (length(name) BETWEEN 1 AND 255),
    score        double precision,
    label        text,
    comment      text,
    source       text,
    created_at   timestamptz NOT NULL DEFAULT now(),
    CHECK (workflow_id IS NOT NULL OR execution_id IS NOT NULL OR message_id IS NOT NULL),
    CHECK (score IS NOT NULL OR label IS NOT NULL OR comment IS NOT NULL)
);

CREATE INDEX feedback_by_workflow ON feedback (workflow_id) WHERE workflow_id IS NOT NULL;

CREATE TABLE payloads (
    digest     bytea PRIMARY KEY CHECK (octet_length(digest) = 32),
    codec      text NOT NULL CHECK (codec IN ('json', 'json+zstd')),
    size_bytes bigint NOT NULL CHECK (size_bytes >= 0),
    body       bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
ALTER TABLE payloads ALTER COLUMN body SET STORAGE EXTERNAL;
